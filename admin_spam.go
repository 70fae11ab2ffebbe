package main

import (
	"context"
	"time"
)

// trainTime is how long one order learns; then it answers, and the next goes on. It is shorter than a command waits.
const trainTime = 15 * time.Second

// onSpam carries out an order about the spam filter.
func (ad *admin) onSpam(verb string, o order) (a answer, known bool, err error) {
	f, err := ad.spam()
	if err != nil {
		return answer{}, true, err
	}
	switch verb {
	case "status":
	case "train":
		class := classHam
		if o.Spam {
			class = classSpam
		}
		ctx, cancel := context.WithTimeout(context.Background(), trainTime)
		defer cancel()
		a.Train, err = f.Train(ctx, o.Dir, class, o.From)
	case "forget":
		err = f.Forget()
	default:
		return answer{}, false, nil
	}
	status := f.Status()
	a.Spam = &status
	return a, true, err
}
