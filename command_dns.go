package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

func dnsCommands() []command {
	return []command{{
		name: "dns", args: "[DOMAIN]", max: 1, about: "print the records that a domain publishes for its mail",
		more: "Without a DOMAIN: those of all domains here. What it prints can be put into a zone file\n" +
			"as it is; it ends with a table for the form of a provider.",
		flags: listFlags, run: printDNS,
	}}
}

// publishedDomain is what dns --json prints for a domain.
type publishedDomain struct {
	Domain  string            `json:"domain"`
	Host    string            `json:"host"` // this machine on the internet
	Records []PublishedRecord `json:"records"`
	Reverse []ReverseName     `json:"reverse"` // to be set by whoever gives out the addresses
}

// addressPatience is how long is waited for our public address.
const addressPatience = 5 * time.Second

func printDNS(ctx context.Context, c *call) error {
	wanted := ""
	if len(c.args) == 1 {
		if wanted = normalDomain(c.args[0]); checkDomain(wanted) != nil {
			return &usageError{fmt.Sprintf("%q is not a domain: %v", c.args[0], checkDomain(wanted))}
		}
	}
	a, err := c.order(ctx, order{Do: "doctor facts"})
	if err != nil {
		return err
	}
	domains, err := publicDomains(a.Facts, wanted)
	if err != nil {
		return err
	}
	plans := c.plans(ctx, a.Facts, domains)
	if c.opt.json {
		list := []publishedDomain{}
		for i := range plans {
			list = append(list, publishedDomain{plans[i].Domain, plans[i].Host, plans[i].Records(), nonNil(plans[i].Reverse())})
		}
		return c.sayJSON(list)
	}
	if len(plans) == 0 {
		c.say("%s", wrapWords("", "", "There is no domain of the internet here yet, so there is nothing to publish. "+domainFirst))
		return nil
	}
	for i := range plans {
		c.say("%s", plans[i].Zone())
	}
	return nil
}

// publicDomains gives the domains that can be published: the one that is wanted, or all.
func publicDomains(facts *DoctorFacts, wanted string) ([]DomainFact, error) {
	if wanted == "" {
		return facts.PublicDomains(), nil
	}
	at := slices.IndexFunc(facts.Domains, func(d DomainFact) bool { return d.Name == wanted })
	switch {
	case at < 0:
		return nil, fmt.Errorf("nobody has an address in %s here: make one first, with `appliance user add NAME@%s`", wanted, wanted)
	case !isPublicName(wanted):
		return nil, fmt.Errorf("%s is a name that only the network here knows, so that there is nothing to publish for it", wanted)
	}
	return facts.Domains[at : at+1], nil
}

// plans gathers what the records are made from. The address of this machine is asked for, or the one that was seen last.
func (c *call) plans(ctx context.Context, facts *DoctorFacts, domains []DomainFact) []DNSPlan {
	if len(domains) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, addressPatience)
	defer cancel()
	addresses, several := c.doctor(nil).Addresses(ctx)
	if len(addresses) == 0 && facts.Last != nil {
		addresses = facts.Last.Addresses
	}
	plans := facts.Plans(domains, addresses)
	for i := range plans {
		plans[i].Shifting = several
	}
	return plans
}
