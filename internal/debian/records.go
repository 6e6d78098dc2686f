package debian

import (
	"fmt"
	"sort"
	"strings"
)

// record writes what dpkg would have recorded on installing p.
func (r *rootfs) record(p Package, control map[string]*controlFile, names []string, conffiles map[string]string) {
	stanza := strings.TrimRight(string(control["control"].body), "\n")
	first, rest, _ := strings.Cut(stanza, "\n")
	fmt.Fprintf(&r.status, "%s\nStatus: install ok installed\n%s\n", first, rest)
	if c := control["conffiles"]; c != nil && len(conffiles) > 0 {
		r.status.WriteString("Conffiles:\n")
		for name := range strings.Lines(string(c.body)) {
			if name = strings.TrimSpace(name); conffiles[name] != "" {
				fmt.Fprintf(&r.status, " %s %s\n", name, conffiles[name])
			}
		}
	}
	r.status.WriteString("\n")
	info, known := p.Name, p.Name
	if strings.Contains("\n"+stanza, "\nMulti-Arch: same") {
		info = p.Name + ":" + p.Arch
		known = info
	}
	if !r.asked[p.Name] && !strings.Contains("\n"+stanza, "\nEssential: yes") {
		fmt.Fprintf(&r.auto, "Package: %s\nArchitecture: amd64\nAuto-Installed: 1\n\n", p.Name)
	}
	dir := "var/lib/dpkg/info/"
	r.file(dir+info+".list", 0o644, strings.Join(names, "\n")+"\n")
	for _, name := range sortedNames(control) {
		if c := control[name]; name != "control" {
			r.file(dir+info+"."+name, c.mode, string(c.body))
			if name == "triggers" {
				r.interests(known, string(c.body))
			}
		}
	}
}

// interests notes which triggers a package waits for.
func (r *rootfs) interests(pkg, triggers string) {
	for line := range strings.Lines(triggers) {
		f := strings.Fields(line)
		if len(f) != 2 || !strings.HasPrefix(f[0], "interest") {
			continue
		}
		if f[0] == "interest-noawait" {
			pkg += "/noawait"
		}
		if strings.HasPrefix(f[1], "/") {
			r.triggers["File"] = append(r.triggers["File"], f[1]+" "+pkg)
		} else {
			r.triggers[f[1]] = append(r.triggers[f[1]], pkg)
		}
		pkg = strings.TrimSuffix(pkg, "/noawait")
	}
}

func sortedNames[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}
