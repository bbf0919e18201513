package main

import (
	"encoding/json"
	"io"
)

func printStatus(w io.Writer, raw []json.RawMessage) error { _ = w; _ = raw; return nil }
