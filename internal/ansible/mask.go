package ansible

import (
	"cmp"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// What AnsibleModule writes in place of a secret: a whole value, and a part of one.
const (
	hiddenValue = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
	hiddenPart  = "********"
)

// secretsOf adds to secrets the texts and numbers in v, in every spelling.
func secretsOf(secrets []string, v any) []string {
	for _, text := range texts(nil, v) {
		for _, s := range spellings(text) {
			if s != "" && !slices.Contains(secrets, s) {
				secrets = append(secrets, s)
			}
		}
	}
	return secrets
}

// texts adds to all the texts in v, and its numbers as texts.
func texts(all []string, v any) []string {
	switch v := v.(type) {
	case string:
		return append(all, v)
	case json.Number:
		return append(all, v.String())
	case int64:
		return append(all, strconv.FormatInt(v, 10))
	case []any:
		for _, element := range v {
			all = texts(all, element)
		}
	case map[string]any:
		for _, element := range v {
			all = texts(all, element)
		}
	}
	return all
}

// A part of a secret that is shorter is in too many words to be hidden by itself.
const shortestPart = 4

// spellings are the forms in which a secret may stand in a message: as it is, as %q writes it, as addresses write it and have it decoded; each line of
// several; and the password of an address.
func spellings(text string) (all []string) {
	parts := []string{text}
	if lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }); len(lines) > 1 {
		parts = append(parts, lines...)
	}
	plain := decoded(text)
	separated := strings.NewReplacer("%3a", ":", "%3A", ":", "%40", "@").Replace(text)
	parts = append(parts, password(text), password(separated), password(plain), decoded(password(text)))
	if plain != text {
		parts = append(parts, plain)
	}
	for i, part := range parts {
		if i > 0 && len(part) < shortestPart {
			continue
		}
		quoted := strconv.Quote(part)
		path, query := url.PathEscape(part), url.QueryEscape(part)
		all = append(all, part, quoted[1:len(quoted)-1], path, query, lowerEscapes(path), lowerEscapes(query))
	}
	return all
}

// decoded takes back percent-encoding, also of what was encoded twice.
func decoded(text string) string {
	for range 3 {
		plain, err := url.PathUnescape(text)
		if err != nil || plain == text {
			break
		}
		text = plain
	}
	return text
}

// password is what stands between a colon and the last @ of an address, empty if nothing does.
func password(text string) string {
	_, rest, found := strings.Cut(text, ":")
	at := strings.LastIndexByte(rest, '@')
	if !found || at < 0 {
		return ""
	}
	if _, secret, found := strings.Cut(strings.TrimLeft(rest[:at], "/"), ":"); found {
		return secret
	}
	return ""
}

// lowerEscapes writes %3A as %3a.
func lowerEscapes(text string) string {
	out := []byte(text)
	for i := 0; i+2 < len(out); i++ {
		if out[i] == '%' {
			copy(out[i:i+3], strings.ToLower(text[i:i+3]))
		}
	}
	return string(out)
}

// mask hides the secrets in v. As in AnsibleModule keys and booleans stay: they are the shape of the result, which a
// secret such as "name" would break.
func mask(v any, secrets []string) any {
	if len(secrets) == 0 {
		return v
	}
	// A secret that is a part of another one must not be replaced first.
	longest := slices.SortedFunc(slices.Values(secrets), func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	var pairs []string
	for _, s := range longest {
		pairs = append(pairs, s, hiddenPart)
	}
	return maskWith(v, secrets, strings.NewReplacer(pairs...))
}

func maskWith(v any, secrets []string, parts *strings.Replacer) any {
	switch v := v.(type) {
	case string:
		if slices.Contains(secrets, v) {
			return hiddenValue
		}
		return parts.Replace(v)
	case json.Number:
		if text := v.String(); parts.Replace(text) != text {
			return hiddenValue
		}
	case int64:
		if text := strconv.FormatInt(v, 10); parts.Replace(text) != text {
			return hiddenValue
		}
	case []any:
		masked := make([]any, len(v))
		for i, element := range v {
			masked[i] = maskWith(element, secrets, parts)
		}
		return masked
	case map[string]any:
		masked := make(map[string]any, len(v))
		for key, element := range v {
			masked[key] = maskWith(element, secrets, parts)
		}
		return masked
	}
	return v
}
