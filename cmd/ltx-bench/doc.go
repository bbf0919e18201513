// Command ltx-bench measures ltxstream end to end, with the real programs in
// processes of their own, and prints the tables of docs/performance.md.
//
// Whatever is compared is measured in turns in one run, because machines are
// shared and noisy. It is no part of the product.
package main
