package main

import (
	"github.com/spf13/pflag"

	"github.com/cutoutdev/cutout/internal/config"
)

// rulesHelp explains the flags of bindRules. It is part of the help of every
// command that has them.
const rulesHelp = `Where a value comes from: --secret NAME@HOST takes your variable NAME,
--secret NAME=SOURCE@HOST what SOURCE gives:

  env:VAR              another variable
  file:PATH            a file with the value alone
  exec:COMMAND         what a command prints; a line for the shell, or a JSON
                       array of program and arguments
  keyring:SERVICE/USER the desktop's keyring
  vault:PATH#FIELD     a Vault or OpenBao server, found as the vault command
                       finds it
  age:FILE             a file that is encrypted with age

A well-known credential needs no host: --secret GITHUB_TOKEN. cutout secret
ls-known lists them, with where they go. A host that you name is the only one.

Rules for a secret; NAME is that of a --secret:

  --surface NAME=LIST, separated by commas, replaces the default header,basic.
    header is the headers that carry credentials (Authorization, X-Api-Key and
    the like), header:X-NAME one more, header:* all but those that must be
    named (Cookie, Referer, User-Agent and what proxies write). basic, query,
    path and websocket take no name. body can be narrowed to a media type
    (body:application/json), a JSON pointer (body:/auth/token) or the field of
    a form (body:token).
  --scope NAME='METHOD PATH' may be given several times: one must match. In a
    path * is any text within a segment, a last /** any rest. Without METHOD
    any will do.
  --on-violation [NAME=]ACTION says what becomes of a request whose
    placeholder may not be swapped: block, block-and-log (the default in
    headers, queries and paths), block-and-terminate, which ends the sandbox,
    or passthrough[:HOST,…], which lets the useless text go (the default in
    bodies). block,hold reads a whole body before the head goes out.
  --placeholder NAME=shaped draws a placeholder that looks like the value, for
    programs that check their key: kind, length, alphabet and checksum are
    right, the rest is random.
  --scrub [HOST=]MODE says how answers are searched for values, the last one for
    a host: on, lax, which passes on what cannot be searched, off, or all, which
    searches those of every intercepted host and needs --tls-intercept all.

What is called dangerous takes back a promise and is said at every start.`

// bindRules adds the flags about secrets, which are the same for every
// command that knows secrets.
func bindRules(f *pflag.FlagSet, r *config.Rules) {
	list := func(to *[]string, name, form, usage string) { f.Var(listFlag{to, form}, name, usage) }
	list(&r.Secrets, "secret", "NAME[=SOURCE][@HOST[:PORT],...]", "swap the placeholder of NAME for its value in requests to HOST")
	list(&r.Placeholders, "placeholder", "NAME=TEXT", "what stands for the secret in the guest, or shaped (default $MSB_NAME)")
	list(&r.Surfaces, "surface", "NAME=LIST", "where in a request the value may go (default header,basic)")
	list(&r.Scopes, "scope", "NAME='METHOD PATH'", "which requests may carry the value (default all)")
	list(&r.OnViolation, "on-violation", "[NAME=]ACTION", "what to do with a placeholder that may not be swapped")
	list(&r.Exclusive, "exclusive", "NAME", "refuse requests to the secret's hosts that carry another credential")
	list(&r.Scrub, "scrub", "[HOST=]MODE", "how answers are searched for values: on (default), all; dangerous: lax, off")
	list(&r.AllowPlain, "allow-plain", "NAME@HOST", "dangerous: the value may go to HOST unencrypted")
	list(&r.AllowUnverified, "allow-unverified", "NAME@HOST", "dangerous: the value may go to HOST without proof that it is HOST")
	list(&r.NoVerify, "tls-no-verify-upstream-for", "HOST", "dangerous: do not verify the certificate of HOST")
	list(&r.AllowSharedSuffix, "allow-shared-suffix", "'*.SUFFIX'", "dangerous: *.SUFFIX may be a host though anybody can own a name there")
	list(&r.AllowAnyHost, "allow-any-host", "NAME", "dangerous: the host of NAME may be *, every server that the guest names")
	list(&r.AllowShort, "allow-short", "NAME", "dangerous: the value may be shorter than 8 bytes; it is never searched for")
}
