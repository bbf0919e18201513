// Package bank owns a workload with invariants that a single SELECT can judge: money moves between accounts.
//
// Every transfer is one transaction that changes two accounts, inserts a row, now and then deletes old ones, and bumps the sequence in
// the ledger row. In every state that the database ever had:
//   - the balances add up to the ledger's total;
//   - each account remembers the sequence that touched it last, and their sum is the ledger's own running sum: every
//     transfer raises it on several pages at once, so a mix of old and new pages does not add up;
//   - the newest touch and the newest transfer row bear the ledger's sequence.
//
// The sequence grows by one with each transfer, whoever writes, so a reader that sees it shrink went back in time.
//
// The package works on any database/sql handle. It opens nothing.
package bank
