package main

import "slices"

// What a person sets for the own mail; the first page leads there.

func mineRoutes() []webRoute {
	return slices.Concat(awayRoutes(), forwardRoutes(), openRoutes(), moveRoutes())
}

// mineOrders are the orders that these pages give.
func mineOrders() []string {
	return []string{"user away set", "user away off", "user forward set", "user forward off", "sessions list", "sessions end",
		"movein start", "movein status", "movein stop"}
}
