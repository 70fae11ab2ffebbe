package main

import "sort"

// sortFunc sorts as slices.SortFunc does. That one the compiler writes anew for each type of element, some 20 KB of program a
// type; this goes through the one sort of package sort, which is as fast for lists that people see. Long lists of
// messages are sorted by slices.SortFunc.
func sortFunc[E any](list []E, compare func(a, b E) int) {
	sort.Slice(list, func(i, j int) bool { return compare(list[i], list[j]) < 0 })
}

// sortStableFunc is the same for slices.SortStableFunc: equals stay in their order.
func sortStableFunc[E any](list []E, compare func(a, b E) int) {
	sort.SliceStable(list, func(i, j int) bool { return compare(list[i], list[j]) < 0 })
}
