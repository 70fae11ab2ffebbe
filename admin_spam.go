package main

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
		a.Train = f.Train(o.Mails, class)
	case "forget":
		err = f.Forget()
	default:
		return answer{}, false, nil
	}
	status := f.Status()
	a.Spam = &status
	return a, true, err
}
