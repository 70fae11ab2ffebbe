package main

import "context"

func caCommands() []command {
	return []command{{
		name: "ca", about: "print the certificate of the local authority, in PEM",
		more:  "A device that trusts it trusts this mail server: save it as a file and open that on the device.",
		flags: dataFlag,
		run: func(_ context.Context, c *call) error {
			text, err := readAuthorityPEM(c.data.tls())
			if err != nil {
				return err
			}
			_, err = c.stdout.Write(text)
			return err
		},
	}}
}
