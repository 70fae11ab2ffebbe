package main

import (
	"net/http"
	"strings"
	"sync/atomic"
)

// The metrics, as Prometheus reads them: from this machine without more ado, from elsewhere under TLS with a token.

func metricsRoutes() []webRoute {
	return []webRoute{
		{pattern: "GET /metrics", do: (*webRequest).metrics, raw: true, plain: true},
		{pattern: "POST /health/metrics", who: forOwner, do: (*webRequest).makeToken, again: (*webRequest).health},
		{pattern: "POST /health/metrics/remove", who: forOwner, do: (*webRequest).removeToken, again: (*webRequest).health},
	}
}

// metrics tells the metrics to who may have them.
func (q *webRequest) metrics() error {
	given, _ := strings.CutPrefix(q.r.Header.Get("Authorization"), "Bearer ")
	switch {
	case q.atMachine():
	case q.r.TLS == nil: // no token is taken in the clear
		q.toTLS(q.rw, q.r)
		return nil
	case !q.Token.Is(strings.TrimSpace(given)):
		q.rw.Header().Set("WWW-Authenticate", `Bearer realm="metrics"`)
		http.Error(q.rw, "The metrics are for this machine, and for who has the token: appliance metrics token makes one.", http.StatusUnauthorized)
		return nil
	}
	q.rw.Header().Set("Content-Type", metricsType)
	_ = WriteMetrics(q.rw, q.Metrics()) // the reader's loss
	return nil
}

// makeToken makes a token and shows it, once.
func (q *webRequest) makeToken() error {
	a, err := q.order(order{Do: "metrics token"})
	if err != nil {
		return err
	}
	return q.doneWith("/health", webNotice{Key: "health.token_made", Secret: a.Password})
}

func (q *webRequest) removeToken() error {
	if _, err := q.order(order{Do: "metrics remove"}); err != nil {
		return err
	}
	return q.done("/health", "health.token_removed")
}

// HasToken says whether there is a token for the metrics.
func (v *webView) HasToken() bool { return v.q.Token.Exists() }

// webAnswered counts answers by the class of their status.
type webAnswered [6]atomic.Uint64

// webStatus notes the status of an answer.
type webStatus struct {
	http.ResponseWriter
	code int
}

// WriteHeader is http.ResponseWriter.
func (s *webStatus) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (s *webStatus) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// count adds an answer.
func (a *webAnswered) count(code int) { a[min(max(code/100, 0), len(a)-1)].Add(1) }

// Answered tells how many requests were answered since the start, by the class of the status: "2xx".
func (w *Web) Answered() map[string]uint64 {
	all := map[string]uint64{}
	for class := 2; class < len(w.answered); class++ {
		all[string(rune('0'+class))+"xx"] = w.answered[class].Load()
	}
	return all
}
