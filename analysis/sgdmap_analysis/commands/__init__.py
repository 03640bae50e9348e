"""The subcommands, a module each: `add_parser(commands)` adds its parser, whose default `command` runs it."""
