"""DuckDB in place of Athena, in a process of its own.

In a process with torch and MLflow, its binding fails to shut down when the interpreter exits, and
fills the terminal with reports of leaks.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DUCKDB_TYPES = {
    "string": "VARCHAR",
    "bigint": "BIGINT",
    "int": "INTEGER",
    "double": "DOUBLE",
    "array<bigint>": "BIGINT[]",
    "array<double>": "DOUBLE[]",
    "map<string,array<double>>": "MAP(VARCHAR, DOUBLE[])",
    "array<int>": "INTEGER[]",
    "array<string>": "VARCHAR[]",
    "map<string,string>": "MAP(VARCHAR, VARCHAR)",
    "struct<user:boolean,items:array<bigint>>": "STRUCT(user BOOLEAN, items BIGINT[])",
    "struct<user:boolean,items:array<string>>": "STRUCT(user BOOLEAN, items VARCHAR[])",
    "struct<sources:string,ages:string>": "STRUCT(sources VARCHAR, ages VARCHAR)",
}
RUN = """
import json, sys
import duckdb
connection = duckdb.connect()
for statement in json.load(sys.stdin):
    result = connection.execute(statement)
names = [column[0] for column in result.description]
json.dump([dict(zip(names, row, strict=True)) for row in result.fetchall()], sys.stdout)
"""


@dataclass(frozen=True)
class Athena:
    """A table as Glue describes it (its TableInput), over downloaded objects."""

    table: Mapping[str, Any]
    objects: Path

    def rows(self, *statements: str) -> list[dict[str, Any]]:
        """The rows of the last statement; what the others create exists for this call only."""
        process = subprocess.run(
            [sys.executable, "-c", RUN],
            input=json.dumps([self._view, *statements]),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (process.returncode, process.stderr) == (0, "")
        rows: list[dict[str, Any]] = json.loads(process.stdout)
        return rows

    @property
    def _view(self) -> str:
        columns = {
            c["Name"]: DUCKDB_TYPES[c["Type"]] for c in self.table["StorageDescriptor"]["Columns"]
        }
        partitions = {key["Name"]: DUCKDB_TYPES[key["Type"]] for key in self.table["PartitionKeys"]}
        return (
            f"CREATE VIEW {self.table['Name']} AS SELECT * FROM read_json("  # noqa: S608 the template's
            f"'{self.objects}/**/*.jsonl.gz', columns={_struct(columns)}, "
            "format='newline_delimited', compression='gzip', hive_partitioning=true, "
            f"hive_types={_struct(partitions | {'model': 'VARCHAR'})})"
        )


def _struct(types: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"'{name}': '{kind}'" for name, kind in types.items()) + "}"
