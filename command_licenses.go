package main

import (
	"context"
	_ "embed"
	"io"
)

// licenseTexts are those of Go and of all modules in the program, which they ask to be passed on with it. scripts/licenses
// writes the file, TestLicenses compares it with the modules that the program is built from.
//
//go:embed licenses.txt
var licenseTexts string

func licenseCommand() command {
	return command{
		name: "licenses", about: "print the licences of the software in this program",
		run: func(_ context.Context, c *call) error {
			_, err := io.WriteString(c.stdout, licenseTexts)
			return err
		},
	}
}
