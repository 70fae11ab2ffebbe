package main

import (
	"reflect"
	"testing"
)

// TestTemplateMethods makes sure that a release finds every method that templates do without it.
func TestTemplateMethods(t *testing.T) {
	view := &webView{}
	all := reflect.ValueOf(view)
	for i := range all.NumMethod() {
		name := all.Type().Method(i).Name
		if name == "TemplateMethod" {
			continue
		}
		if m := view.TemplateMethod(name); m == nil || reflect.TypeOf(m) != all.Method(i).Type() {
			t.Errorf("TemplateMethod (web_methods.go) does not give %s", name)
		}
	}
	if view.TemplateMethod("Data") != nil {
		t.Error("a field is a method")
	}
}
