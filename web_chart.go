package main

// Charts, as pictures in the page (SVG). What they show stands in words beside them, and in a table below.

const (
	chartWidth  = 600 // units of the picture; it is as wide as there is room
	chartHeight = 120
	chartGap    = 0.15 // of the room of a column that stays free, on either side
)

// webChart is columns beside each other.
type webChart struct {
	Label string // all of it in a sentence
	Most  int    // at the top
	Bars  []webBar
	From  string // below the first column
	Until string // below the last
}

// webBar is one column, or a part of one.
type webBar struct {
	Class        string // what the style sheet knows its colour by
	X, Y         float64
	Wide, Height float64
}

// webSeries is the values of one colour.
type webSeries struct {
	Class  string
	Values []int
}

// newChart draws the values of each place beside each other. least is the smallest value that reaches to the top.
func newChart(least int, series ...webSeries) webChart {
	c := webChart{Most: least}
	for _, s := range series {
		for _, v := range s.Values {
			c.Most = max(c.Most, v)
		}
	}
	c.Most = roundUp(c.Most)
	for n, s := range series {
		room := float64(chartWidth) / float64(len(s.Values))
		wide := room * (1 - 2*chartGap) / float64(len(series))
		for i, v := range s.Values {
			if v <= 0 {
				continue
			}
			height := max(1, float64(v)*chartHeight/float64(c.Most))
			c.Bars = append(c.Bars, webBar{s.Class, tenth(float64(i)*room + room*chartGap + float64(n)*wide), tenth(chartHeight - height), tenth(wide), tenth(height)})
		}
	}
	return c
}

// tenth rounds to what can be seen.
func tenth(v float64) float64 { return float64(int(v*10+0.5)) / 10 }

// roundUp gives the next number that people count in: 1, 2 or 5 and noughts.
func roundUp(n int) int {
	for step := 1; ; step *= 10 {
		for _, nice := range []int{1, 2, 5} {
			if nice*step >= n {
				return nice * step
			}
		}
	}
}
