package secret

import "bytes"

// A family is the tokens of one kind: what all of them have in common.
type family struct {
	prefix     string
	letters    string // at least these may follow
	separators string // stay where they are
	suffix     string // of all, if of this one
	sum        bool   // may end in a checksum; see checksum
}

// families are the kinds of tokens that are known by their prefix. A prefix
// that is not here is taken for a part of the value and drawn anew.
var families = []family{
	// GitHub, "Behind GitHub's new authentication token formats", 5 April 2021:
	// 30 letters and digits, then their CRC-32 in base 62.
	{prefix: "ghp_", letters: alphanumeric, sum: true},
	{prefix: "gho_", letters: alphanumeric, sum: true},
	{prefix: "ghu_", letters: alphanumeric, sum: true},
	{prefix: "ghs_", letters: alphanumeric, sum: true},
	{prefix: "ghr_", letters: alphanumeric, sum: true},
	// GitHub, "Introducing fine-grained personal access tokens", 18 October
	// 2022; two parts of 22 and 59 letters and digits.
	{prefix: "github_pat_", letters: alphanumeric, separators: "_"},
	// GitHub changelog, "npm has a new access token format", 23 September 2021:
	// as GitHub's own.
	{prefix: "npm_", letters: alphanumeric, sum: true},
	// gitleaks rules anthropic-api-key and anthropic-admin-api-key: 93 letters,
	// then AA.
	{prefix: "sk-ant-api03-", letters: urlLetters, suffix: "AA"},
	{prefix: "sk-ant-admin01-", letters: urlLetters, suffix: "AA"},
	{prefix: "sk-ant-oat01-", letters: urlLetters, suffix: "AA"},
	{prefix: "sk-ant-", letters: urlLetters},
	// gitleaks rule openai-api-key.
	{prefix: "sk-proj-", letters: urlLetters},
	{prefix: "sk-svcacct-", letters: urlLetters},
	{prefix: "sk-admin-", letters: urlLetters},
	{prefix: "sk-", letters: alphanumeric},
	// AWS IAM User Guide, "IAM identifiers"; gitleaks rule aws-access-token:
	// 16 letters of base 32.
	{prefix: "AKIA", letters: upper + "234567"},
	{prefix: "ASIA", letters: upper + "234567"},
	// Slack, "Token types"; gitleaks rules slack-bot-token, slack-user-token,
	// slack-app-token: numbers and letters between hyphens.
	{prefix: "xoxb-", letters: digits, separators: "-"},
	{prefix: "xoxp-", letters: digits, separators: "-"},
	{prefix: "xapp-1-", letters: digits, separators: "-"},
	// GitLab, "Token overview", token prefixes; gitleaks rule gitlab-pat.
	{prefix: "glpat-", letters: urlLetters},
	{prefix: "gldt-", letters: urlLetters},
	{prefix: "glrt-", letters: urlLetters},
	{prefix: "glptt-", letters: urlLetters},
	// gitleaks rule huggingface-access-token: 34 letters.
	{prefix: "hf_", letters: lower + upper},
	// Stripe, "API keys"; gitleaks rule stripe-access-token.
	{prefix: "sk_live_", letters: alphanumeric},
	{prefix: "sk_test_", letters: alphanumeric},
	{prefix: "rk_live_", letters: alphanumeric},
	{prefix: "rk_test_", letters: alphanumeric},
	// gitleaks rule gcp-api-key: 35 letters.
	{prefix: "AIza", letters: urlLetters},
	// gitleaks rule sendgrid-api-token: two parts after the prefix.
	{prefix: "SG.", letters: urlLetters},
	// gitleaks rule digitalocean-pat: 64 hexadecimal digits.
	{prefix: "dop_v1_", letters: digits + "abcdef"},
	// gitleaks rule vault-service-token.
	{prefix: "hvs.", letters: urlLetters},
}

// familyOf returns the family with the longest prefix of value, or one that
// says nothing.
func familyOf(value []byte) family {
	var best family
	for _, f := range families {
		if len(f.prefix) > len(best.prefix) && bytes.HasPrefix(value, []byte(f.prefix)) {
			best = f
		}
	}
	return best
}
