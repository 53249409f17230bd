"""One module per verb: parse, check, call one library function, report. No science here."""
