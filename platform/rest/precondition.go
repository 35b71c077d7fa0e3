package rest

import "strings"

// Preconditions are the headers that say which version of a resource the client wants to replace or delete (RFC 9110, section
// 13.1). Embed them in the operation's input, check them where the resource changes, and return 412 if they do not hold.
type Preconditions struct {
	IfMatch     string `header:"If-Match" doc:"The ETag that the resource must have, as GET answered it, or * for any state that there is."`
	IfNoneMatch string `header:"If-None-Match" doc:"With * the resource is created, and not changed if it exists."`
}

// Hold reports whether the preconditions hold for a resource with this ETag. An empty ETag means that the resource does not exist.
func (p Preconditions) Hold(etag string) bool {
	if p.IfMatch != "" && (etag == "" || !names(p.IfMatch, etag)) {
		return false
	}
	return !NotModified(p.IfNoneMatch, etag)
}

// NotModified reports whether If-None-Match has the ETag, so that GET returns 304.
func NotModified(ifNoneMatch, etag string) bool {
	return ifNoneMatch != "" && etag != "" && names(strings.ReplaceAll(ifNoneMatch, "W/", ""), etag)
}

// names reports whether a list of ETags contains the given one, by strong comparison (RFC 9110, section 8.8.3.2).
func names(list, etag string) bool {
	for one := range strings.SplitSeq(list, ",") {
		if one = strings.TrimSpace(one); one == etag || one == "*" {
			return true
		}
	}
	return false
}
