package bank

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// CheckSQL reads, in one statement and therefore in one snapshot, all that State holds, in the order of its fields.
const CheckSQL = `SELECT seq, total, touched, accounts,
	(SELECT sum(balance) FROM account), (SELECT sum(touched) FROM account), (SELECT max(touched) FROM account),
	(SELECT count(*) FROM account), (SELECT coalesce(max(seq), 0) FROM transfer) FROM ledger`

// SeqSQL reads the sequence only: the cheapest look at how far a database is.
const SeqSQL = `SELECT seq FROM ledger`

// State is what one look at a bank saw: what the ledger says, and what the other tables add up to.
type State struct {
	Seq, Total, Touched, Accounts int64 // of the ledger

	SumBalance, SumTouched, MaxTouched, CountAccounts, LastTransfer int64 // of the other tables
}

// InvariantError says that a state is one that the bank never had.
type InvariantError struct{ State State }

func (e *InvariantError) Error() string {
	s := e.State
	return fmt.Sprintf("bank at seq %d: total %d vs balances %d, touched %d vs %d, last touch %d, last transfer %d, accounts %d vs %d",
		s.Seq, s.Total, s.SumBalance, s.Touched, s.SumTouched, s.MaxTouched, s.LastTransfer, s.Accounts, s.CountAccounts)
}

// Verify returns an *InvariantError when s cannot be a state the bank had.
func (s State) Verify() error {
	ok := s.Total == s.SumBalance && s.Touched == s.SumTouched && s.Seq == s.MaxTouched &&
		s.Seq == s.LastTransfer && s.Accounts == s.CountAccounts
	if !ok {
		return &InvariantError{State: s}
	}
	return nil
}

// Read looks at the bank once. The state is not verified.
func Read(ctx context.Context, q sqlconn.Querier) (State, error) {
	return Scan(q.QueryRowContext(ctx, CheckSQL))
}

// Scan reads the result of CheckSQL.
func Scan(row *sql.Row) (State, error) {
	var s State
	err := row.Scan(&s.Seq, &s.Total, &s.Touched, &s.Accounts,
		&s.SumBalance, &s.SumTouched, &s.MaxTouched, &s.CountAccounts, &s.LastTransfer)
	if err != nil {
		return State{}, fmt.Errorf("read bank: %w", err)
	}
	return s, nil
}

// Check is Read and Verify.
func Check(ctx context.Context, q sqlconn.Querier) (State, error) {
	s, err := Read(ctx, q)
	if err != nil {
		return State{}, err
	}
	return s, s.Verify()
}
