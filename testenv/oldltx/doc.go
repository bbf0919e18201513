// Package oldltx makes LTX files as superfly/ltx v0.5.0 and v0.5.1 wrote them, and
// with them Litestream v0.5.0 to v0.5.15: each page a whole LZ4 frame, without a
// length before it. No later version of superfly/ltx writes them.
//
// It knows no role.
package oldltx
