package logs

import "regexp"

// shape is one kind of secret.
type shape struct {
	// re has groups around what must go; what stands around them stays, so that a
	// reader still knows what was there.
	re *regexp.Regexp
	// near are texts, in lower case, of which every match contains one: a line
	// without them is not looked at by re, which is a hundred times slower.
	near []string
	// may, if set, is a condition of the same kind.
	may func(*glance) bool
}

// What may stand after the name of a secret: in quotes everything, else a word.
const value = `\\*(?:"((?:[^"\\]|\\.)+)|'([^']+)|([^\s"'&;]+))`

// The names of secrets, and what every one of them contains.
const names = `passw(?:or)?d|passphrase|passcode|secret|token|requirepass|masterauth|(?:api|app|access|private|encryption|signing|master|account|ssh|auth|license|storage|sharedaccess|preshared|pre_shared|consumer|webhook)[_-]?key|credential|signature|session[_-]?id`

var nameTexts = []string{"passw", "passphrase", "passcode", "secret", "token", "requirepass", "masterauth", "key", "credential", "signature", "session"}

// tokens are what clouds and forges hand out, by their own prefixes, before 16 or
// more letters, digits, - or _.
const tokens = `AIza|ya29\.|GOCSPX-|gl[a-z]{2,5}-|whsec_|sk-|hv[sbr]\.|hf_|api_org_|npm_|pypi-|rubygems_|dckr_[po]at_|lin_(?:api|oauth)_|tskey-|AGE-SECRET-KEY-1|do[opr]_v1_|` +
	`(?:ghp|gho|ghu|ghs|ghr|github_pat)_|GR1348941|(?:sk|rk|pk)_(?:live|test)_|(?:sk|pk)\.eyJ|shp(?:at|ca|pa|ss)_|xapp-|xox[abceoprs]-|ntn_|figd_|PMAK-|gl(?:sa|c)_|NR(?:AK|II|JS|RA|BR)-|sntry[su]_|` +
	`sq0(?:atp|csp|idp)-|EAAA|EAAC|xkeysib-|xsmtpsib-|HRKU-|fo1_|fm[12]_|pscale_(?:tkn|pw|oauth)_|sbp_|sb_secret_|pul-|ATATT3|ATCTT3|ATBB|p8e-|bkua_|CCI(?:PAT|PRJ)_|CFPAT-|duffel_(?:live|test)_|` +
	`EZ[AT]K|fio-u-|rdme_|tfp_|shippo_(?:live|test)_|r8_|ops_eyJ|CLOJARS_|oy2|AQVN|t1\.9|ABSK|tvly-|gsk_|xai-|pplx-|nvapi-|ctx7sk-|dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]+\.)?|ABIA|ACCA|sdk-[0-9a-f]{8}-|api-[0-9a-f]{8}-|` +
	`vercel_|PMAT-|sk_prod_|ph[cx]_|cfat_|v1\.0-`

var tokenTexts = []string{
	"aiza", "ya29.", "gocspx-", "gl", "whsec_", "sk-", "hvs.", "hvb.", "hvr.", "hf_", "api_org_", "npm_", "pypi-", "rubygems_", "dckr_", "lin_", "tskey-", "age-secret-key-1", "_v1_",
	"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "_live_", "_test_", ".eyj", "shp", "xapp-", "xox", "ntn_", "figd_", "pmak-", "nrak-", "nrii-", "nrjs-", "nrra-", "nrbr-", "sntry",
	"sq0", "eaaa", "eaac", "sib-", "hrku-", "fo1_", "fm1_", "fm2_", "pscale_", "sbp_", "sb_secret_", "pul-", "tt3", "atbb", "p8e-", "bkua_", "cci", "cfpat-", "gr1348941",
	"ezak", "eztk", "fio-u-", "rdme_", "tfp_", "r8_", "ops_eyj", "clojars_", "oy2", "aqvn", "t1.9", "absk", "tvly-", "gsk_", "xai-", "pplx-", "nvapi-", "ctx7sk-", "dp.", "abia", "acca", "sdk-", "api-",
	"vercel_", "pmat-", "sk_prod_", "phc_", "phx_", "cfat_", "v1.0-",
}

// shapes are looked for one after the other.
var shapes = []shape{
	// Authorization headers and the like: the whole of the header.
	{
		re:   regexp.MustCompile(`(?i)\b(?:authorization|cookie|set-cookie|x-api-key|x-auth-token)\\*["']?\s*[:=]\s*\\*["']?([^\r\n"']{2,})`),
		near: []string{"authorization", "cookie", "x-api-key", "x-auth-token"},
	},
	{
		re:   regexp.MustCompile(`(?i)\b(?:bearer|basic|digest|negotiate)\s+([A-Za-z0-9._~+/=-]{20,}|[A-Za-z._~+/=-]*[0-9][A-Za-z0-9._~+/=-]{4,})`),
		near: []string{"bearer", "basic", "digest", "negotiate"},
	},
	// key=value, key: value, "key":"value": any name that says what it is.
	{re: regexp.MustCompile(`(?i)(?:` + names + `)[\w.-]*\\*["']?\s*(?:=>|:=|[:=]|%3D|%3A)\s*` + value), near: nameTexts},
	{re: regexp.MustCompile(`(?i)(?:_(?:pass|pwd|auth|psk|pin|salt|hmac)|\bpass|\bpsk|\bsig|\bmnemonic|;\s*pwd)\\*["']?\s*=\s*` + value), near: []string{"pass", "pwd", "auth", "sig", "psk", "pin", "salt", "hmac", "mnemonic"}},
	{re: regexp.MustCompile(`(?i)(?:_(?:pass|pwd|auth|psk|pin)\\*["']?|["'](?:pass|pwd|psk|pin)\\*["'])\s*:\s*` + value), near: []string{"pass", "pwd", "auth", "psk", "pin"}},
	{re: regexp.MustCompile(`(?i)--[\w-]*(?:passw(?:or)?d|passphrase|secret|token|key|credential)s?[ =]` + value), near: []string{"--"}},
	{re: regexp.MustCompile(`(?i)<[\w:.-]*(?:passw(?:or)?d|passphrase|secret|token|apikey|privatekey)[\w:.-]*>([^<]+)<`), near: []string{"<"}},
	{re: regexp.MustCompile(`(?i)\b(?:mnemonic|seed[ _-]phrase|recovery[ _-](?:phrase|codes?|key))\s*[:=]\s*(.+)`), near: []string{"mnemonic", "phrase", "recovery"}},
	{re: regexp.MustCompile(`(?i)\b(?:otp|pin|totp|mfa|2fa|cvv|cvc)(?:[ _-]?code)?\s*[:=]\s*["']?([0-9]{3,8})\b`), near: []string{"otp", "pin", "mfa", "2fa", "cvv", "cvc"}},
	// Command lines.
	{re: regexp.MustCompile(`(?i)\bcurl\b.*\s(?:-u|--user|-U|--proxy-user)[ =]*["']?[^\s:"']+:([^\s"']+)`), near: []string{"curl"}},
	{re: regexp.MustCompile(`(?i)\b(?:mysql|mariadb)[\w-]*\s(?:.*\s)?-p["']?([^\s"']+)`), near: []string{"mysql", "mariadb"}},
	{re: regexp.MustCompile(`(?i)\b(?:sshpass|ldap[a-z]+|docker\s+login|podman\s+login|7z|ipmitool)\s(?:.*\s)?-[pw][ =]?["']?([^\s"']+)`), near: []string{"sshpass", "ldap", "login", "7z", "ipmitool"}},
	{re: regexp.MustCompile(`(?i)-(?:pass|passin|passout)\s+(?:pass|file):([^\s"']+)`), near: []string{"-pass"}},
	{re: regexp.MustCompile(`(?i)\bredis-cli\b.*\s-a[ =]?["']?([^\s"']+)`), near: []string{"redis-cli"}},
	{re: regexp.MustCompile(`(?i)(?:^|[^\w])(?:requirepass|masterauth|primaryauth)\s+["']?([^\s"']+)`), near: []string{"requirepass", "masterauth", "primaryauth"}},
	{re: regexp.MustCompile(`(?i)"auth"\s+(?:"[^"]*"\s+)?"([^"]+)"`), near: []string{`"auth"`}},
	{re: regexp.MustCompile(`(?i)\blogin\s+\S+\s+password\s+([^\s]+)`), near: []string{"login"}},
	// SQL.
	{re: regexp.MustCompile(`(?i)\b(?:identified\s+(?:with\s+\S+\s+)?(?:by|as)|password)\s+(?:password\s+)?'([^']+)`), near: []string{"identified", "password"}},
	// What stands where passwords are kept: their hashes.
	{re: regexp.MustCompile(`(\$(?:1|2[abxy]|5|6|7|y|gy|apr1|argon2(?:id|i|d)|scrypt|pbkdf2(?:-sha\d+)?)\$[^\s:"']{8,})`), near: []string{"$"}},
	{re: regexp.MustCompile(`(SCRAM-SHA-(?:1|256)\$[^\s"']+|\{S?SHA(?:256|512)?\}[A-Za-z0-9+/=]{16,}|\bmd5[0-9a-f]{32}\b)`), near: []string{"scram", "sha", "md5"}},
	// user:password@host in a URL; a token alone before the host; keys in its query.
	{re: regexp.MustCompile(`[a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/@]*:([^\s/]+)@`), near: []string{"://"}},
	{re: regexp.MustCompile(`://([A-Za-z0-9_.~-]{20,})@`), near: []string{"://"}},
	{re: regexp.MustCompile(`(?i)[?&](?:auth|key|code|pwd|pass|sid|sig|hmac|jwt|ticket|otp|state|nonce|assertion|samlresponse)=([^\s"'&;]{6,})`), near: []string{"?", "&"}},
	// PEM, also a line of its body: base64 of full width and nothing else.
	{re: regexp.MustCompile(`(-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*)`), near: []string{"private key"}},
	{re: body, may: (*glance).wide},
	// A JSON Web Key's private part.
	{re: regexp.MustCompile(`"(?:d|p|q|dp|dq|qi|k)"\s*:\s*"([A-Za-z0-9_-]{20,})"`), near: []string{`"d"`, `"p"`, `"q"`, `"dp"`, `"dq"`, `"qi"`, `"k"`}, may: (*glance).longRun},
	// Keys that clouds and forges hand out.
	{re: regexp.MustCompile(`\b((?:AKIA|ASIA|AGPA|AIDA|AROA|ABIA|ACCA|LTAI|AKID)[A-Za-z0-9]{16,})\b`), near: []string{"akia", "asia", "agpa", "aida", "aroa", "abia", "acca", "ltai", "akid"}, may: (*glance).longRun},
	{re: regexp.MustCompile(`\b((?:` + tokens + `)[A-Za-z0-9_-]{16,})`), near: tokenTexts, may: (*glance).longRun},
	{re: regexp.MustCompile(`\b(SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,})`), near: []string{"sg."}, may: (*glance).longRun},
	{re: regexp.MustCompile(`\b((?:SK|dapi|key-)[0-9a-f]{32})\b`), near: []string{"sk", "dapi", "key-"}, may: (*glance).longRun},
	{re: regexp.MustCompile(`\b([0-9a-f]{32}-us[0-9]{1,2})\b`), near: []string{"-us"}, may: (*glance).longRun},
	{re: regexp.MustCompile(`\b(secret_[A-Za-z0-9]{32,})`), near: []string{"secret_"}, may: (*glance).longRun},
	{re: regexp.MustCompile(`\b([A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{20,})`), near: []string{".atlasv1."}},
	{re: regexp.MustCompile(`\b(pat[A-Za-z0-9]{14}\.[0-9a-f]{32,})`), near: []string{"pat"}, may: (*glance).longRun},
	{re: regexp.MustCompile(`\b(dt0[a-z][0-9]{2}\.[A-Z0-9]{16,}\.[A-Z0-9]{32,})`), near: []string{"dt0"}, may: (*glance).longRun},
	{re: regexp.MustCompile(`\b([MNO][A-Za-z0-9_-]{22,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,})`), near: []string{"."}, may: (*glance).longRun},
	{re: regexp.MustCompile(`\b([A-Za-z0-9]{3}[78]Q~[A-Za-z0-9_.~-]{31,34})`), near: []string{"7q~", "8q~"}},
	{re: regexp.MustCompile(`\b(A3-[A-Z0-9]{6}-[A-Z0-9]{6,11}-[A-Z0-9-]{11,})`), near: []string{"a3-"}},
	{re: regexp.MustCompile(`\b([0-9]{8,10}:[A-Za-z0-9_-]{35})\b`), may: (*glance).numbered},
	{re: regexp.MustCompile(`hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9/_-]{10,})`), near: []string{"hooks.slack.com"}},
	{re: regexp.MustCompile(`discord(?:app)?\.com/api/webhooks/[0-9]+/([A-Za-z0-9_-]{10,})`), near: []string{"/api/webhooks/"}},
	{re: regexp.MustCompile(`webhook\.office\.com/webhookb2/([A-Za-z0-9@/_-]{10,})`), near: []string{"webhook.office.com"}},
	{re: regexp.MustCompile(`api\.telegram\.org/bot([0-9]+:[A-Za-z0-9_-]+)`), near: []string{"api.telegram.org"}},
	// JSON web tokens, also those that are encrypted.
	{re: regexp.MustCompile(`\b(eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,3})`), near: []string{"eyj"}},
}

var (
	body     = regexp.MustCompile(`^\s*([A-Za-z0-9+/]{60,76}={0,2})\s*$`)
	bodyEnd  = regexp.MustCompile(`^\s*[A-Za-z0-9+/]{1,76}={0,2}\s*$`)
	pemBegin = regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----`)
)
