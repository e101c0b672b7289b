"""The command line: one module per command, options → one call → render.

Nothing is judged here, and nothing else imports typer or rich. `app` names the commands and loads one when it runs;
`options` holds what several commands accept, `values` turns words into values, `terminal` keeps untrusted text off the
operator's screen, `output`, `table` and `render` print, `failures` turns every error into one line and an exit code.

Data goes to stdout (the table with its summary, or JSON, YAML, names), everything else to stderr.
"""
