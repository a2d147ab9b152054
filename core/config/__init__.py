"""What an operator can set: one YAML file, environment variables over it, and nothing unchecked.

In: the text of the file and the environment. Out: `Settings`, immutable and complete, with a line of warning for what is
likely a mistake; or SettingsError, one line with file or variable, key and what was expected.

    settings        every setting: its section, default and rule   rules            one for each kind of value
    yaml_document   strict YAML, and where each key stands

Uses messages (symbols, decimals) and the ground. What a value means is known by the room that uses it.
"""
