package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// helpWanted says whether help is asked for, and about what: `help COMMAND`
// or --help anywhere before a --.
func helpWanted(all []command, args []string) (topic []string, ok bool) {
	if len(args) > 0 && args[0] == "help" {
		return args[1:], true
	}
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if arg == "--help" || arg == "-help" || arg == "-h" {
			return helpTopic(all, args[:i]), true
		}
	}
	return nil, false
}

// helpTopic cuts arguments down to the words of a command or a noun.
func helpTopic(all []command, args []string) []string {
	if cmd, _ := findCommand(all, args); cmd != nil && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return strings.Fields(cmd.name)
	}
	for i, arg := range args {
		if strings.HasPrefix(arg, "-") {
			return args[:i]
		}
	}
	return args
}

// help prints the help about a topic: all, a noun ("user") or a command.
func help(all []command, topic []string, stdout, stderr io.Writer) int {
	name := strings.Join(topic, " ")
	if name == "" || name == "help" {
		_, _ = io.WriteString(stdout, mainUsage(all))
		return exitDone
	}
	if i := slices.IndexFunc(all, func(cmd command) bool { return cmd.name == name }); i >= 0 {
		_, _ = io.WriteString(stdout, all[i].usage())
		return exitDone
	}
	if text := nounUsage(all, name); text != "" {
		_, _ = io.WriteString(stdout, text)
		return exitDone
	}
	return usageFailure(stderr, mainUsage(all), fmt.Sprintf("there is no command %q", name))
}

// usageOf gives the usage that helps with a command that does not exist.
func usageOf(all []command, args []string) string {
	for n := len(args); n > 0; n-- {
		if text := nounUsage(all, strings.Join(args[:n], " ")); text != "" {
			return text
		}
	}
	return mainUsage(all)
}

// nounUsage lists the commands that begin with the words, "" for none.
func nounUsage(all []command, words string) string {
	var of []command
	for _, cmd := range all {
		if strings.HasPrefix(cmd.name, words+" ") {
			of = append(of, cmd)
		}
	}
	if len(of) == 0 {
		return ""
	}
	return "Usage:\n" + commandLines(of)
}

func mainUsage(all []command) string {
	var out strings.Builder
	out.WriteString("Appliance: a mail server in one file.\n\nUsage:\n")
	out.WriteString(commandLines(all))
	out.WriteString(helpLine("help [COMMAND]", "more about one of these; --help after a command does the same"))
	out.WriteString("\nWithout a command it runs.\n")
	return out.String()
}

func commandLines(list []command) string {
	var out strings.Builder
	for _, cmd := range list {
		out.WriteString(helpLine(strings.TrimSpace(cmd.name+" "+cmd.args), cmd.about))
	}
	return out.String()
}

// helpColumn is where the words about a command begin, counted from its name; a longer one has them on the next line.
const helpColumn = 40

// helpLine is a command with the words about it.
func helpLine(words, about string) string {
	if len(words) > helpColumn {
		return fmt.Sprintf("  appliance %s\n  %*s %s\n", words, helpColumn+len("appliance "), "", about)
	}
	return fmt.Sprintf("  appliance %-*s %s\n", helpColumn, words, about)
}

// usage is the whole help about a command.
func (cmd *command) usage() string {
	var out strings.Builder
	line := "appliance " + strings.TrimSpace(cmd.name+" "+cmd.args)
	fs := cmd.flagSet(&options{})
	flags := 0
	fs.VisitAll(func(*flag.Flag) { flags++ })
	if flags > 0 {
		line += " [flags]"
	}
	_, _ = fmt.Fprintf(&out, "Usage: %s\n\n%s.\n", line, upperFirst(cmd.about))
	if cmd.more != "" {
		out.WriteString(cmd.more + "\n")
	}
	if flags > 0 {
		out.WriteString("\nFlags:\n")
		fs.VisitAll(func(f *flag.Flag) {
			value, about := flag.UnquoteUsage(f)
			_, _ = fmt.Fprintf(&out, "  %-26s %s\n", strings.TrimSpace("--"[:min(len(f.Name), 2)]+f.Name+" "+value), about)
		})
	}
	return out.String()
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
