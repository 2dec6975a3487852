"""What `sql` promises: SQLite's answers where the two dialects agree, and refusals that name what is refused."""

from __future__ import annotations

import sqlite3
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.schema import Column, Schema
from penstock.operators.sql import Sql

from .conftest import Apply, applied, faults

CLICKS = pl.DataFrame(
    {"id": [1, 2, 3, 4, 5], "user": [7, 8, 7, None, 9], "price": [5, 1, None, 4, 2], "city": ["a", "é", "a", "b", None]}
)
USERS = pl.DataFrame({"user": [9, 7, 7, None, 1], "age": [30, 40, 41, 50, 60], "city": ["x", "y", "z", "w", "v"]})


def sql(query: str, tables: str = "clicks users") -> Sql:
    return Sql.model_validate({"from": tables, "query": query})


def sqlite(query: str, **tables: pl.DataFrame) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(":memory:")
    try:
        for name, frame in tables.items():
            columns = ", ".join(f'"{column}"' for column in frame.columns)
            db.execute(f"create table {name} ({columns})")
            marks = ", ".join("?" for _ in frame.columns)
            db.executemany(f"insert into {name} values ({marks})", frame.rows())
        return db.execute(query).fetchall()
    finally:
        db.close()


SAME = [
    "select id, price * 2 as twice from clicks where price > 1 order by id",
    "select * from clicks order by price desc nulls last, id",
    "select c.id, u.age from clicks as c join users as u on c.user = u.user order by c.id, u.age",
    "select c.id, u.age, u.city as home from clicks c left join users u on u.user = c.user order by id, age nulls last",
    "select id, age from clicks left join users on clicks.user = users.user and users.age > 40 order by id, age",
    "select id, age from clicks c join users u on c.user = u.user and c.price < u.age and c.id > 1 order by id, age",
    "select id, age, c.user, u.user as other from clicks c full join users u on c.user = u.user "
    "order by id nulls last, age nulls last",
    "select id, age, u.user as other from clicks c right join users u on c.user = u.user order by id nulls last, age",
    "select user, id, age from clicks join users using (user) order by id, age",
    "select count(*) as n from clicks, users",
    "select c.id, u.age from clicks c cross join users u where c.id = 1 and u.age > 40 order by u.age",
    "select city, count(*) as n, sum(price) as s, avg(price) as m from clicks group by city order by city nulls last",
    "select city, count(*) as n from clicks group by 1 having count(*) > 1",
    "select price % 2 as odd, max(id) as top from clicks where price is not null group by price % 2 order by odd",
    "select upper(city) as c, count(*) as n from clicks where city = 'a' group by city",
    "select count(*) as n, min(price) as low from clicks",
    "select count(*) as n from clicks where id > 100",
    "select count(distinct city) as n from clicks having count(*) > 3",
    "select distinct user from clicks where user is not null order by user desc",
    "select distinct city, user from clicks order by user nulls last, city nulls last limit 3",
    "select id from clicks order by id desc limit 2 offset 1",
    "select user from clicks union all select age from users order by 1 nulls last",
    "select user from clicks union select user from users order by user nulls last",
    "select id from (select id, price from clicks where price > 1) as dear where dear.price < 5 order by id",
    "with dear as (select * from clicks where price > 1), few as (select id from dear limit 2) "
    "select d.id, d.price from dear d join few f on d.id = f.id order by d.id",
    "select a.id, b.id as other from clicks a join clicks b on a.city = b.city and a.id < b.id",
    "select id, case when price > 3 then 'up' when price is null then '?' else 'low' end as k from clicks order by 1",
    "select id from clicks where price between 2 and 4 or city in ('é', 'b') order by id",
    "select user, sum(price) as s from clicks group by user having sum(price) > 1 order by s desc, user",
    "select sum(price) + count(*) as x, city from clicks group by city order by count(*) desc, city nulls last",
    "select 1 as one, 'é' as e from clicks where id < 3",
    "select u.* from users u where u.age < 45 order by age",
]  # fmt: skip


@pytest.mark.parametrize("query", SAME)
def test_it_answers_as_sqlite_does(apply: Apply, query: str) -> None:
    made = apply(sql(query), clicks=CLICKS, users=USERS).frame
    assert made.rows() == sqlite(query, clicks=CLICKS, users=USERS)


def test_semi_and_anti_joins_keep_left_rows_in_order(apply: Apply) -> None:
    made = apply(sql("select id from clicks semi join users on clicks.user = users.user"), clicks=CLICKS, users=USERS)
    assert made.frame["id"].to_list() == [1, 3, 5]
    made = apply(sql("select id from clicks anti join users using (user)"), clicks=CLICKS, users=USERS)
    assert made.frame["id"].to_list() == [2, 4]


def test_a_port_is_a_table_with_an_underscore(apply: Apply) -> None:
    operator = sql("select count(*) as n from parts_train", "parts.train")
    assert apply(operator, parts__train=CLICKS).frame.item() == 5


def test_names_and_aliases_may_be_quoted(apply: Apply) -> None:
    frame = pl.DataFrame({"user id": [2, 1], "日": ["x", "y"]})
    made = apply(sql('select t."user id" as "the id" from a as t order by t."日" desc', "a"), a=frame).frame
    assert made.to_dict(as_series=False) == {"the id": [1, 2]}


def test_roles_pass_through_columns_and_not_through_expressions(apply: Apply) -> None:
    infos = {"clicks": Schema((Column("id", role="kept"), Column("price", role="label")), "plan")}
    made = apply(sql("select id as i, price, price + 1 as p from clicks", "clicks"), infos, clicks=CLICKS).infos[""]
    assert isinstance(made, Schema)
    assert {c.name: c.role for c in made} == {"i": "kept", "price": "label", "p": ""} and made.plan == "plan"


def test_without_order_by_rows_keep_the_first_tables_order(apply: Apply) -> None:
    made = apply(sql("select c.id from clicks c left join users u on c.user = u.user"), clicks=CLICKS, users=USERS)
    assert made.frame["id"].to_list() == [1, 1, 2, 3, 3, 4, 5]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("select idd from clicks", "EXPR010 there is no column 'idd' (at character 8)"),
        ("select c.id from clicks", "OPER110 there is no table 'c' here (at character 8)"),
        ("select id\nfrom clickz", "OPER110 there is no table 'clickz' here (at line 2, character 6)"),
        ("select city from clicks, users", "OPER112 'city' may mean clicks.city or users.city (at character 8)"),
        ("select id from parts.train", "OPER110 'parts.train' is no table"),
        ("select count(*) from clicks", "EXPR005 this entry has no name (at character 8)"),
        ("select id, sum(price) as s from clicks group by city", "EXPR014"),
        ("select id from clicks where id = 'a'", "EXPR013 compares a number with a string (at character 34)"),
        ("select id from clicks where price", "OPER102 where: the condition is int64, not true or false"),
        ("select id, row_number() over (order by id) as r from clicks", "OPER109 window functions are not known here"),
        ("select id from clicks natural join users", "OPER109 natural joins are not known here"),
        ("select id from clicks intersect select age from users", "OPER109 intersect is not known here"),
        (
            "select id from clicks c left join users u on c.price < u.age",
            "OPER109 a left join matches by equality only",
        ),
        (
            "select id from clicks c join users u on c.city = u.age",
            "EXPR013 compares a string with a number (at character 50)",
        ),
        ("select id from clicks union select id, city from clicks", "OPER109 one side of the union has 1 columns"),
        ("select id from clicks union select city from clicks", "OPER106 column 'id' is int64 on one side"),
        ("select id from clicks where id in (select user from users)", "EXPR"),
        ("select id, id from clicks", "OPER103 select: 'id' is named twice"),
        ("select c.id from clicks c, users c", "OPER109 two tables are called 'c'"),
        ("select 1 as one", "OPER109 the query reads no table"),
        ("delete from clicks", "OPER109 this is no SELECT"),
        ("select id from clicks order by 4", "OPER109 the select list has no place 4"),
        ("select id from clicks limit 1 + 1", "OPER109 `limit` takes a whole number"),
        ("select id from clicks qualify id = 1", "OPER109 `qualify` is not known here"),
        ("with recursive r as (select id from r) select id from r", "OPER109 recursive queries are not known here"),
        ("select distinct city from clicks order by id", "OPER109 with distinct, `order by` takes"),
        ("select city from clicks group by cube(city)", "OPER109 `cube` is not known here"),
        ("select id from", "EXPR"),
    ],
)
def test_what_it_refuses_is_one_problem_with_its_place(query: str, said: str) -> None:
    found = faults(sql(query), clicks=CLICKS, users=USERS)
    assert len(found) == 1 and found[0].startswith(said), found


def test_unknown_schemas_are_not_guessed_at() -> None:
    assert faults(sql("select whatever from clicks where x > 1", "clicks"), clicks=Schema.unknown()) == []
    assert faults(sql("select * from clicks c join users u on c.a = u.b"), clicks=Schema.unknown(), users=USERS) == []


rows = st.lists(st.tuples(st.none() | st.integers(-2, 2), st.none() | st.sampled_from(["", "a", "é"])), max_size=8)


@settings(max_examples=50, deadline=None)
@given(rows, rows, st.sampled_from(["join", "left join", "full join"]))
def test_joins_and_groups_equal_sqlite(tmp_path_factory: Any, left: Any, right: Any, kind: str) -> None:
    types = {"k": pl.Int64, "s": pl.String}
    frames = {n: pl.DataFrame(r, schema=types, orient="row") for n, r in (("a", left), ("b", right))}
    query = (
        f"select a.s, count(*) as n, sum(b.k) as total, max(b.s) as top from a {kind} b on a.k = b.k "
        "group by a.s having count(*) > 0 order by a.s nulls last"
    )
    made = applied(tmp_path_factory.getbasetemp(), sql(query, "a b"), frames, {}).frame
    assert made.rows() == sqlite(query, **frames)
