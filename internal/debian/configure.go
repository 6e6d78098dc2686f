package debian

import (
	"archive/tar"
	"fmt"
	"path"
	"slices"
	"strings"
)

// configure does what the maintainer scripts of the default set of packages
// do when it is installed on nothing.
func (r *rootfs) configure() error {
	r.layout()
	r.accounts()
	r.baseFiles()
	r.login()
	r.alternatives()
	if err := r.certificates(); err != nil {
		return err
	}
	r.sources()
	r.dpkg()
	return r.err
}

// layout makes the links of a merged /usr and the root itself.
func (r *rootfs) layout() {
	r.dir("", 0o755, 0)
	for _, m := range merged {
		if r.have["usr/"+m] == tar.TypeDir {
			r.link(m, "usr/"+m)
		}
	}
}

// accounts does base-passwd's, passwd's and apt's part.
func (r *rootfs) accounts() {
	var passwd, shadow, group, gshadow strings.Builder
	users := string(r.kept["usr/share/base-passwd/passwd.master"])
	if !strings.Contains(users, "\n_apt:") {
		users += "_apt:*:42:65534::/nonexistent:/usr/sbin/nologin\n"
	}
	days := r.newest.Unix() / 86400
	for line := range strings.SplitSeq(strings.TrimSpace(users), "\n") {
		f := strings.Split(line, ":")
		if len(f) != 7 {
			continue
		}
		f[1] = "x"
		passwd.WriteString(strings.Join(f, ":") + "\n")
		fmt.Fprintf(&shadow, "%s:*:%d:0:99999:7:::\n", f[0], days)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(string(r.kept["usr/share/base-passwd/group.master"])), "\n") {
		f := strings.Split(line, ":")
		if len(f) != 4 {
			continue
		}
		f[1] = "x"
		group.WriteString(strings.Join(f, ":") + "\n")
		gshadow.WriteString(f[0] + ":*::\n")
	}
	r.file("etc/passwd", 0o644, passwd.String())
	r.file("etc/group", 0o644, group.String())
	r.fileOf(shadowGroup, "etc/shadow", 0o640, shadow.String())
	r.fileOf(shadowGroup, "etc/gshadow", 0o640, gshadow.String())
	r.file("etc/subuid", 0o644, "")
	r.file("etc/subgid", 0o644, "")
}

// Fixed groups of base-passwd.
const (
	mailGroup   = 8
	shadowGroup = 42
	utmpGroup   = 43
)

// baseFiles does base-files', libc-bin's and debianutils' part, and gives the
// machine a name.
func (r *rootfs) baseFiles() {
	for _, f := range [][2]string{
		{"usr/share/base-files/dot.profile", "root/.profile"},
		{"usr/share/base-files/dot.bashrc", "root/.bashrc"},
		{"usr/share/base-files/profile", "etc/profile"},
		{"usr/share/base-files/motd", "etc/motd"},
		{"usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"},
		{"usr/share/base-files/nsswitch.conf", "etc/nsswitch.conf"},
	} {
		if body, ok := r.kept[f[0]]; ok && r.have[f[1]] == 0 {
			r.file(f[1], 0o644, string(body))
		}
	}
	for _, d := range []string{
		"mnt", "srv", "opt", "etc/opt", "var/opt", "media", "usr/local", "usr/local/bin", "usr/local/etc", "usr/local/games",
		"usr/local/include", "usr/local/lib", "usr/local/sbin", "usr/local/share", "usr/local/share/man", "usr/local/src",
		"usr/local/share/ca-certificates", "dev", "proc", "sys", "run", "home", "etc/alternatives",
	} {
		r.dir(d, 0o755, 0)
	}
	r.dir("tmp", 0o1777, 0)
	r.dir("var/mail", 0o2775, mailGroup)
	r.dir("run/lock", 0o1777, 0)
	r.link("var/run", "/run")
	r.link("var/lock", "/run/lock")
	r.link("var/spool/mail", "../mail")
	r.link("usr/local/man", "share/man")
	for _, f := range []string{"wtmp", "lastlog"} {
		r.fileOf(utmpGroup, "var/log/"+f, 0o664, "")
	}
	r.fileOf(utmpGroup, "var/log/btmp", 0o660, "")
	r.file("var/log/faillog", 0o644, "")
	shells := "# /etc/shells: valid login shells\n"
	for _, name := range sortedNames(r.kept) {
		if !strings.HasPrefix(name, "usr/share/debianutils/shells.d/") {
			continue
		}
		for shell := range strings.FieldsSeq(string(r.kept[name])) {
			shells += shell + "\n"
			if strings.HasPrefix(shell, "/bin/") {
				shells += "/usr" + shell + "\n"
			}
		}
	}
	r.file("etc/shells", 0o644, shells)
	r.file("etc/hostname", 0o644, "cutout\n")
	r.file("etc/hosts", 0o644, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	r.file("etc/resolv.conf", 0o644, "")
	r.file("etc/fstab", 0o644, "")
	if r.have["usr/share/zoneinfo/Etc/UTC"] != 0 {
		r.link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC")
		r.file("etc/timezone", 0o644, "Etc/UTC\n")
	}
	if r.have["usr/bin/sh"] == 0 {
		r.link("usr/bin/sh", "dash")
	}
}

// login does libpam-runtime's part, with password files alone.
func (r *rootfs) login() {
	modules := map[string]string{
		"$auth_primary":                      "auth\t[success=1 default=ignore]\tpam_unix.so nullok",
		"$account_primary":                   "account\t[success=1 new_authtok_reqd=done default=ignore]\tpam_unix.so",
		"$password_primary":                  "password\t[success=1 default=ignore]\tpam_unix.so obscure yescrypt",
		"$session_primary":                   "session\t[default=1]\t\t\tpam_permit.so",
		"$session_nonint_primary":            "session\t[default=1]\t\t\tpam_permit.so",
		"$session_additional":                "session\trequired\tpam_unix.so",
		"$session_nonint_additional":         "session\trequired\tpam_unix.so",
		"$session_noninteractive_additional": "session\trequired\tpam_unix.so",
		"$session_noninteractive_primary":    "session\t[default=1]\t\t\tpam_permit.so",
		"$auth_additional":                   "",
		"$account_additional":                "",
		"$password_additional":               "",
	}
	for _, name := range sortedNames(r.kept) {
		base := path.Base(name)
		if !strings.HasPrefix(name, "usr/share/pam/common-") || strings.HasSuffix(name, ".md5sums") {
			continue
		}
		var out strings.Builder
		for line := range strings.Lines(string(r.kept[name])) {
			if m, ok := modules[strings.TrimSpace(line)]; ok {
				line = m + "\n"
			}
			out.WriteString(line)
		}
		r.file("etc/pam.d/"+base, 0o644, out.String())
	}
	r.file("etc/environment", 0o644, "")
	if r.have["etc/security"] == tar.TypeDir {
		r.file("etc/security/opasswd", 0o600, "")
	}
}

// An alternative is what one package registers with update-alternatives.
type alternative struct {
	name, link, target string
	priority           int
	slaves             [][3]string // name, link, target
}

var knownAlternatives = []alternative{
	{"awk", "usr/bin/awk", "usr/bin/mawk", 5, [][3]string{{"nawk", "usr/bin/nawk", "usr/bin/mawk"}}},
	{"awk", "usr/bin/awk", "usr/bin/gawk", 10, [][3]string{{"nawk", "usr/bin/nawk", "usr/bin/gawk"}}},
	{"which", "usr/bin/which", "usr/bin/which.debianutils", 0, nil},
	{"pager", "usr/bin/pager", "usr/bin/more", 50, nil},
	{"pager", "usr/bin/pager", "usr/bin/less", 77, nil},
	{"rmt", "usr/sbin/rmt", "usr/sbin/rmt-tar", 50, nil},
	{"nc", "usr/bin/nc", "usr/bin/nc.openbsd", 50, [][3]string{{"netcat", "usr/bin/netcat", "usr/bin/nc.openbsd"}}},
	{"editor", "usr/bin/editor", "usr/bin/nano", 40, nil},
	{"editor", "usr/bin/editor", "usr/bin/vim.tiny", 15, [][3]string{}},
	{"vi", "usr/bin/vi", "usr/bin/vim.tiny", 15, nil},
}

// alternatives registers those whose programs are there.
func (r *rootfs) alternatives() {
	byName := map[string][]alternative{}
	for _, a := range knownAlternatives {
		if r.have[a.target] != 0 && (r.have[a.link] == 0 || len(byName[a.name]) > 0) {
			byName[a.name] = append(byName[a.name], a)
		}
	}
	for _, name := range sortedNames(byName) {
		choices := byName[name]
		best := slices.MaxFunc(choices, func(a, b alternative) int { return a.priority - b.priority })
		r.alternative(name, "/"+best.link, "/"+best.target)
		admin := "auto\n/" + best.link + "\n"
		for _, s := range best.slaves {
			r.alternative(s[0], "/"+s[1], "/"+s[2])
			admin += s[0] + "\n/" + s[1] + "\n"
		}
		admin += "\n"
		for _, c := range choices {
			admin += fmt.Sprintf("/%s\n%d\n", c.target, c.priority)
			for i := range best.slaves {
				if i < len(c.slaves) {
					admin += "/" + c.slaves[i][2]
				}
				admin += "\n"
			}
		}
		r.file("var/lib/dpkg/alternatives/"+name, 0o644, admin+"\n")
	}
}

func (r *rootfs) alternative(name, link, target string) {
	r.link(strings.TrimPrefix(link, "/"), "/etc/alternatives/"+name)
	r.link("etc/alternatives/"+name, target)
}

// sources makes apt in the guest use the distribution's own archive.
func (r *rootfs) sources() {
	release := map[string]string{}
	for line := range strings.Lines(string(r.kept["usr/lib/os-release"])) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			release[k] = strings.Trim(v, `"`)
		}
	}
	suite := release["VERSION_CODENAME"]
	if suite == "" {
		return // unstable has none, and its users know
	}
	switch release["ID"] {
	case "debian":
		key := "/usr/share/keyrings/debian-archive-keyring.gpg"
		r.file("etc/apt/sources.list.d/debian.sources", 0o644, fmt.Sprintf(`Types: deb
URIs: http://deb.debian.org/debian
Suites: %[1]s %[1]s-updates
Components: main
Signed-By: %[2]s

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: %[1]s-security
Components: main
Signed-By: %[2]s
`, suite, key))
		r.link("etc/dpkg/origins/default", "debian")
	case "ubuntu":
		r.file("etc/apt/sources.list.d/ubuntu.sources", 0o644, fmt.Sprintf(`Types: deb
URIs: http://archive.ubuntu.com/ubuntu
Suites: %[1]s %[1]s-updates %[1]s-security
Components: main universe
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg
`, suite))
		r.link("etc/dpkg/origins/default", "ubuntu")
	}
}

// dpkg writes the rest of dpkg's and apt's records.
func (r *rootfs) dpkg() {
	r.file("etc/dpkg/dpkg.cfg.d/excludes", 0o644, dpkgExcludes)
	r.file("var/lib/dpkg/status", 0o644, r.status.String())
	r.file("var/lib/dpkg/available", 0o644, "")
	r.file("var/lib/dpkg/diversions", 0o644, "")
	r.file("var/lib/dpkg/statoverride", 0o644, "")
	r.file("var/lib/dpkg/info/format", 0o644, "1\n")
	r.file("var/lib/dpkg/triggers/Unincorp", 0o644, "")
	if r.triggers["File"] == nil {
		r.file("var/lib/dpkg/triggers/File", 0o644, "")
	}
	for _, name := range sortedNames(r.triggers) {
		r.file("var/lib/dpkg/triggers/"+name, 0o644, strings.Join(r.triggers[name], "\n")+"\n")
	}
	r.dir("var/lib/dpkg/updates", 0o755, 0)
	r.dir("var/lib/dpkg/parts", 0o755, 0)
	r.dir("var/lib/apt/lists/partial", 0o755, 0)
	r.dir("var/cache/apt/archives/partial", 0o755, 0)
	r.file("var/lib/apt/extended_states", 0o644, r.auto.String())
}
