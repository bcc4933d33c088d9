"""What the comparison and the report are made with: readings, rules, sentences, tables and pictures."""
