package main

// onMetrics carries out an order about the token for metrics.
func (ad *admin) onMetrics(verb string) (a answer, known bool, err error) {
	switch verb {
	case "token":
		a.Password, err = ad.metrics.Make()
	case "remove":
		err = ad.metrics.Remove()
	default:
		return answer{}, false, nil
	}
	if err == nil {
		ad.log.Info("token for metrics changed", "exists", ad.metrics.Exists())
	}
	return a, true, err
}
