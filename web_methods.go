package main

// TemplateMethod gives the method of a name to the templates of a release: as it calls no other methods, the linker may leave
// out those of all the program's types that nothing calls (scripts/overlay). Without that, templates find methods themselves.
// It is nil where there is none.
func (v *webView) TemplateMethod(name string) any {
	switch name {
	case "Account":
		return v.Account
	case "Age":
		return v.Age
	case "Asset":
		return v.Asset
	case "At":
		return v.At
	case "BouncePath":
		return v.BouncePath
	case "ClassOf":
		return v.ClassOf
	case "Day":
		return v.Day
	case "DayOf":
		return v.DayOf
	case "HasToken":
		return v.HasToken
	case "Here":
		return v.Here
	case "Host":
		return v.Host
	case "Int":
		return v.Int
	case "KindOf":
		return v.KindOf
	case "Lang":
		return v.Lang
	case "Later":
		return v.Later
	case "Mistake":
		return v.Mistake
	case "N":
		return v.N
	case "Nav":
		return v.Nav
	case "Never":
		return v.Never
	case "Owner":
		return v.Owner
	case "Param":
		return v.Param
	case "Percent":
		return v.Percent
	case "Person":
		return v.Person
	case "Picked":
		return v.Picked
	case "Protocol":
		return v.Protocol
	case "PurposeOf":
		return v.PurposeOf
	case "SenderOf":
		return v.SenderOf
	case "Size":
		return v.Size
	case "StateClass":
		return v.StateClass
	case "StateOf":
		return v.StateOf
	case "T":
		return v.T
	case "Time":
		return v.Time
	case "Title":
		return v.Title
	case "Token":
		return v.Token
	case "Told":
		return v.Told
	case "Value":
		return v.Value
	case "WhatOf":
		return v.WhatOf
	case "WhyOf":
		return v.WhyOf
	case "With":
		return v.With
	}
	return nil
}
