package ansible

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// What AnsibleModule writes in place of a secret: a whole value, and a part of one.
const (
	hiddenValue = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
	hiddenPart  = "********"
)

// secretsOf adds to secrets the texts and numbers in v. A text is also hidden in the form that %q gives it in an error.
func secretsOf(secrets []string, v any) []string {
	switch v := v.(type) {
	case string:
		quoted := strconv.Quote(v)
		for _, s := range []string{v, quoted[1 : len(quoted)-1]} {
			if s != "" && !slices.Contains(secrets, s) {
				secrets = append(secrets, s)
			}
		}
	case json.Number:
		return secretsOf(secrets, v.String())
	case int64:
		return secretsOf(secrets, strconv.FormatInt(v, 10))
	case []any:
		for _, element := range v {
			secrets = secretsOf(secrets, element)
		}
	case map[string]any:
		for _, element := range v {
			secrets = secretsOf(secrets, element)
		}
	}
	return secrets
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
