package main

import (
	"context"
	"fmt"
	"strconv"
)

// userQuota shows a quota, after a change if there is one to make.
func userQuota(ctx context.Context, c *call) error {
	o := order{Do: "user quota", Address: c.args[0]}
	if err := c.quotaChange(&o.Quota); err != nil {
		return err
	}
	a, err := c.order(ctx, o)
	if err != nil {
		return err
	}
	if c.opt.json {
		return c.sayJSON(quotaReport{a.Address, a.Used.Bytes, a.Used.Messages, a.Limit.Bytes, a.Limit.Messages})
	}
	c.say("%s holds %s in %s; %s", a.Address, roundSize(a.Used.Bytes), messagesText(a.Used.Messages), limitText(a.Used, a.Limit))
	return nil
}

// quotaReport is what user quota --json prints. A limit that is missing is none.
type quotaReport struct {
	Address       string `json:"address"`
	UsedBytes     int64  `json:"used_bytes"`
	UsedMessages  int64  `json:"used_messages"`
	QuotaBytes    int64  `json:"quota_bytes,omitempty"`
	QuotaMessages int64  `json:"quota_messages,omitempty"`
}

// quotaChange reads what the arguments want changed.
func (c *call) quotaChange(change *QuotaChange) error {
	if len(c.args) > 1 {
		var bytes int64
		if c.args[1] != "none" {
			var err error
			if bytes, err = parseSize(c.args[1]); err != nil {
				return err
			}
		}
		change.Bytes = &bytes
	}
	if c.opt.messages != "" {
		var messages int64
		if c.opt.messages != "none" {
			n, err := strconv.ParseInt(c.opt.messages, 10, 64)
			if err != nil || n < 1 {
				return fmt.Errorf("%q is no number of messages: take 1 or more, or none", c.opt.messages)
			}
			messages = n
		}
		change.Messages = &messages
	}
	return nil
}

// limitText says what a limit is, and what it means for what is used.
func limitText(used, limit Quota) string {
	var text string
	switch {
	case limit == (Quota{}):
		return "there is no quota."
	case limit.Messages == 0:
		text = "the quota is " + formatSize(limit.Bytes)
	case limit.Bytes == 0:
		text = "the quota is " + messagesText(limit.Messages)
	default:
		text = "the quota is " + formatSize(limit.Bytes) + " and " + messagesText(limit.Messages)
	}
	if limit.Bytes > 0 && used.Bytes >= limit.Bytes || limit.Messages > 0 && used.Messages >= limit.Messages {
		return text + ". Until something is deleted, new mail is refused."
	}
	return text + "."
}
