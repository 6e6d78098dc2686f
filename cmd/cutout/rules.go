package main

import (
	"github.com/spf13/pflag"

	"github.com/cutoutdev/cutout/internal/config"
)

// bindRules adds the flags about secrets, which are the same for every
// command that knows secrets.
func bindRules(f *pflag.FlagSet, r *config.Rules) {
	f.Var(listFlag{&r.Secrets, "NAME@HOST[:PORT],..."}, "secret", "swap the placeholder of NAME for its value in requests to HOST")
	f.Var(listFlag{&r.Placeholders, "NAME=TEXT"}, "placeholder", "what stands for the secret in the guest (default $MSB_NAME); shaped for a text like the value")
	f.Var(listFlag{&r.Surfaces, "NAME=LIST"}, "surface", "where in a request the value may go: header, header:X-NAME, header:*, basic, query, path, body, body:TYPE/SUBTYPE, body:/JSON/POINTER, body:FIELD, websocket (default header,basic)")
	f.Var(listFlag{&r.Scopes, "NAME='METHOD PATH'"}, "scope", "which requests may carry the value, such as 'GET /repos/**' (default all)")
	f.Var(listFlag{&r.OnViolation, "[NAME=]ACTION"}, "on-violation", "what to do with a placeholder that may not be swapped: block, block-and-log (default), block-and-terminate, each with ,hold to read a whole body first, or passthrough[:HOST,…]")
	f.Var(listFlag{&r.Scrub, "[HOST=]MODE"}, "scrub", "search what hosts answer for values: on (default), lax, off, or all for every intercepted host")
	f.Var(listFlag{&r.Exclusive, "NAME"}, "exclusive", "refuse requests to the secret's hosts that carry another credential")
	f.Var(listFlag{&r.AllowPlain, "NAME@HOST"}, "allow-plain", "dangerous: the value may go to HOST unencrypted")
	f.Var(listFlag{&r.AllowUnverified, "NAME@HOST"}, "allow-unverified", "dangerous: the value may go to HOST though nobody verified that it is HOST")
	f.Var(listFlag{&r.NoVerify, "HOST"}, "tls-no-verify-upstream-for", "dangerous: do not verify the certificate of HOST")
	f.Var(listFlag{&r.AllowSharedSuffix, "'*.SUFFIX'"}, "allow-shared-suffix", "dangerous: a secret's host may be *.SUFFIX though anybody can own a name there")
	f.Var(listFlag{&r.AllowAnyHost, "NAME"}, "allow-any-host", "dangerous: the host of NAME may be *, every server that the guest names")
	f.Var(listFlag{&r.AllowShort, "NAME"}, "allow-short", "dangerous: the value may be shorter than 8 bytes; answers are then never searched for it")
}
