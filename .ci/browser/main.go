// Browser looks at the page of a running appliance as people do: in Chromium, with the keyboard, on a phone and on a wide
// screen, in light and in dark. It is a module of its own, so that the appliance's stays small; .ci/browser.sh starts it in a
// network of its own, where 192.168.77.1 and .2 are this machine's addresses and the names that are known are those of
// names.go. It prints "ok NAME" or "FAILED NAME" with the reason for each check.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// trial is all that is looked at.
type trial struct {
	binary string // the appliance
	work   string // a folder for all files
	shots  string // where pictures go, "": nowhere
	axe    string // the source of axe-core
	home   *appliance
	other  *appliance // the provider, and the old account
	paints []paint
	failed int
}

func main() {
	t := &trial{}
	axe := flag.String("axe", "", "`FILE` of axe-core")
	flag.StringVar(&t.binary, "binary", "", "`FILE` of the appliance")
	flag.StringVar(&t.work, "work", "", "`FOLDER` for all files")
	flag.StringVar(&t.shots, "shots", "", "`FOLDER` for pictures of all pages")
	flag.Parse()
	source, err := os.ReadFile(*axe)
	if err == nil {
		t.axe = string(source)
		err = t.run(context.Background())
	}
	if err != nil {
		fmt.Println("FAILED the trial:", err)
		os.Exit(1)
	}
	if t.failed > 0 {
		os.Exit(1)
	}
}

// run starts both appliances and a browser, and does all there is to do.
func (t *trial) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	if err := serveNames(); err != nil {
		return fmt.Errorf("names: %w", err)
	}
	var err error
	if t.other, err = startAppliance(t, "provider.example", "192.168.77.2", ""); err != nil {
		return err
	}
	defer t.other.stop()
	if t.home, err = startAppliance(t, "kitchen.home.lan", "192.168.77.1", filepath.Join(t.other.data, "tls", "ca.pem")); err != nil {
		return err
	}
	defer t.home.stop()
	b, err := startBrowser(ctx, t)
	if err != nil {
		return err
	}
	defer b.close()
	t.withoutScript(b)
	t.firstVisit(b)
	t.people(b)
	t.mine(b)
	t.devices(b)
	t.domain(b)
	t.health(b)
	t.relay(b)
	t.refusals(b)
	t.lookAround(b)
	t.printPaints()
	return nil
}

// check prints one line about what was tried.
func (t *trial) check(name string, do func() error) {
	err := do()
	if err == nil {
		fmt.Println("ok", name)
		return
	}
	t.failed++
	fmt.Println("FAILED", name+":", strings.ReplaceAll(err.Error(), "\n", "\n  "))
}
