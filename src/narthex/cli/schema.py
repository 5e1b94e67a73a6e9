"""`narthex schema`: the JSON Schema of `narthex.yaml`, for editors and checks elsewhere."""

from __future__ import annotations

import click


@click.command()
def schema() -> None:
    """Print the JSON Schema of narthex.yaml.

    Editors use it by a first line such as

    \b
        # yaml-language-server: $schema=narthex.schema.json
    """
    import json

    from narthex.config.render import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
