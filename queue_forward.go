package main

import (
	"context"
	"io"
	"time"
)

// reportForward is report for a message that is forwarded for a person here. Its sender is told nothing: the person had it go
// on, and learns that it did not. Where no copy stayed here, the message itself goes into the INBOX first, and waits in the
// queue for as long as that fails.
func (q *Queue) reportForward(ctx context.Context, item *queueItem, news []reportedRecipient, now time.Time) {
	var failed []reportedRecipient
	for _, r := range news {
		if r.action == actionFailed {
			failed = append(failed, r)
		}
	}
	if len(failed) == 0 {
		return
	}
	if item.Envelope.Moved && !item.Returned {
		if err := q.giveBack(ctx, item); err != nil {
			q.cfg.Log.Error("a message that could not be forwarded is not in the INBOX yet", "id", item.id, "account", item.Envelope.Forward, "error", err)
			q.waitOn(item, failed, now)
			return
		}
		q.mu.Lock()
		item.Returned = true
		q.mu.Unlock()
	}
	message, err := q.compose(item, failed, now)
	if err == nil {
		err = q.cfg.Report(context.WithoutCancel(ctx), &item.Envelope, message)
	}
	if err != nil {
		q.cfg.Log.Error("a person could not be told that mail was not forwarded", "id", item.id, "error", err)
	}
}

// giveBack has a message delivered here.
func (q *Queue) giveBack(ctx context.Context, item *queueItem) error {
	message, err := q.files.open(item.id)
	if err != nil {
		return err
	}
	defer message.Close()
	return q.cfg.GiveBack(context.WithoutCancel(ctx), &item.Envelope, io.NewSectionReader(message, 0, message.Size))
}

// waitOn lets recipients that have failed be tried again.
func (q *Queue) waitOn(item *queueItem, failed []reportedRecipient, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range failed {
		if st := &item.States[r.index]; st.State == SendFailed {
			st.State, st.Next = SendWaiting, now.Add(queueGaps[2])
		}
	}
}
