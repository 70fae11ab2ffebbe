// Acme is an authority for tests: Pebble, which Let's Encrypt makes for that, on a free port of the loopback address. It is a
// module of its own, so that the appliance's stays small. The tests in tls_pebble_test.go start it.
//
// It writes root.pem, who vouches for its own certificate, and issuer.pem, the root of those that it gives, into a folder,
// prints the URL of its directory, and ends with its standard input.
package main

import (
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

func main() {
	dns := flag.String("dns", "", "`ADDRESS:PORT` of the server for names, over TCP")
	plain := flag.Int("http", 0, "`PORT` in the place of 80")
	secure := flag.Int("tls", 0, "`PORT` in the place of 443")
	valid := flag.Uint64("valid", 3600, "`SECONDS` that certificates are good")
	dir := flag.String("dir", ".", "`FOLDER` for the roots")
	verbose := flag.Bool("v", false, "log on standard error")
	flag.Parse()
	if err := run(*dns, *plain, *secure, *valid, *dir, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dns string, plain, secure int, valid uint64, dir string, verbose bool) error {
	out := io.Discard
	if verbose {
		out = os.Stderr
	}
	logger := log.New(out, "pebble ", log.Lmicroseconds)
	store := db.NewMemoryStore()
	authority := ca.New(logger, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {Description: "for tests", ValidityPeriod: valid}})
	validator := va.New(logger, plain, secure, false, dns, store)
	front := wfe.New(logger, store, validator, authority, []string{"pebble.letsencrypt.org"}, false, false, 0, 0)
	server := httptest.NewTLSServer(front.Handler())
	defer server.Close()
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, "root.pem"), own, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "issuer.pem"), authority.GetRootCert(0).PEM(), 0o600); err != nil {
		return err
	}
	fmt.Println(server.URL + wfe.DirectoryPath)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
