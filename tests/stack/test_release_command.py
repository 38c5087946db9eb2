"""`feedrank release`, `rollback` and `status`: what they ask of AWS, and what an operator reads."""

import json
import re
from typing import Any
from unittest import mock

import boto3
import pytest
from botocore.parsers import ResponseParserError
from typer.testing import CliRunner, Result

from feedops.cli.main import app
from feedops.release.candidates import MAX_URI, URI
from feedrank.bundle.layout import parse_manifest
from stack.recorded import ALIAS, NAME, NEW, OLD, PASSES, TEXTS, Frame, RecordedAws
from stack.transform import template, transformed


def _rolled_back(reason: str = "", **deployment: Any) -> list[Frame]:
    failed = (
        (ALIAS, "UPDATE_FAILED", reason),
        ("Observability", "UPDATE_FAILED", "Resource update cancelled"),
        (NAME, "UPDATE_ROLLBACK_IN_PROGRESS", f"The following resource(s) failed: [{ALIAS}]."),
    )
    end = ((NAME, "UPDATE_ROLLBACK_COMPLETE", ""),)
    return [*PASSES[:3], Frame(failed, **deployment), Frame(end, **deployment)]


VERSION = parse_manifest(NEW[1]).model_version


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> RecordedAws:
    recorded = RecordedAws()
    recorded.versions["43"] = NEW[0]
    return recorded.install(monkeypatch)


def _run(line: str, stack: str = NAME) -> Result:
    return CliRunner().invoke(app, [*line.split(), "--stack", stack])


def _served(result: Result) -> list[tuple[str, str, str]]:
    """Version, traffic and digest of the versions that get traffic."""
    return re.findall(r"(\d+) +(\d+%) +\S+ +(\S+|see /model) ", result.output)


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_a_release_changes_the_model_and_keeps_everything_else(aws: RecordedAws) -> None:
    aws.frames = [*PASSES]
    result = _run(f"release {NEW[0]}")
    assert result.exit_code == 0, result.output
    (request,) = aws.called("CreateChangeSet")
    values = {each.pop("ParameterKey"): each for each in request.pop("Parameters")}
    assert values.pop("ModelUri") == {"ParameterValue": NEW[0]}
    assert set(values) == set(template()["Parameters"]) - {"ModelUri"}
    assert all(value == {"UsePreviousValue": True} for value in values.values())
    assert re.fullmatch("feedrank-release-[0-9a-f]{12}", request.pop("ChangeSetName"))
    assert request == {
        "StackName": NAME,
        "ChangeSetType": "UPDATE",
        "UsePreviousTemplate": True,
        "Capabilities": ["CAPABILITY_AUTO_EXPAND", "CAPABILITY_IAM"],
    }
    assert aws.actions == ["CreateChangeSet", "ExecuteChangeSet"]


def test_the_processed_template_is_the_same_for_every_bundle() -> None:
    """So that the previous template needs no new transform for a new bundle."""
    assert transformed(ModelUri=OLD[0]) == transformed(ModelUri=NEW[0])


def test_a_release_shows_its_progress_and_ends_with_what_is_served(aws: RecordedAws) -> None:
    aws.frames = [*PASSES]
    lines = _run(f"release {NEW[0]}").output.splitlines()
    shown = lines[next(i for i, line in enumerate(lines) if line.startswith("09:")) :]
    assert [line.strip() for line in shown] == [
        "09:00:01  feedrank-prod         UPDATE_IN_PROGRESS: User Initiated",
        "09:00:02  Function              UPDATE_COMPLETE",
        "the hook sends the golden requests to the new version",
        "the hook accepts the new version",
        "version 43 gets 10 % of the traffic",
        "09:00:04  FunctionAliaslive     UPDATE_COMPLETE",
        "09:00:05  feedrank-prod         UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
        "version 43 gets 100 % of the traffic",
        "CodeDeploy: d-ABCDEF123 succeeded",
        "version   traffic   model         digest         published",
        mock.ANY,
        f"43      100%   feed_ranker   {NEW[0][-65:][:12]}   2026-11-20T08:00:00Z",
        f"feedrank-prod serves {NEW[0]}",
    ]


def test_all_pages_of_a_change_set_are_shown(aws: RecordedAws) -> None:
    result = _run(f"release {NEW[0]} --dry-run")
    assert re.search(r"Modify +Function +AWS::Lambda::Function", result.output)
    assert re.search(r"Replace +FunctionVersion1f", result.output)


def test_a_dry_run_deletes_its_change_set_and_executes_nothing(aws: RecordedAws) -> None:
    result = _run(f"release {NEW[0]} --dry-run")
    assert result.exit_code == 0
    assert aws.actions == ["CreateChangeSet", "DeleteChangeSet"]
    lines = result.output.splitlines()
    assert lines[0] == f"{VERSION}, ModelUri={NEW[0]}"
    assert lines[-1] == f"Not executed: ModelUri={OLD[0]} stays"


def test_the_hooks_reason_is_shown_where_it_refuses_the_version(aws: RecordedAws) -> None:
    aws.frames = _rolled_back("CodeDeploy failed", hook="Failed", status="Failed", error="failed")
    message = "its scores differ from the golden ones by up to 2.0e-01"
    aws.hook_log = [json.dumps({"level": "ERROR", "errorMessage": message})]
    result = _run(f"release {NEW[0]}")
    assert result.exit_code == 1
    assert result.output.splitlines()[-3:] == [
        f"{NAME}: the update was rolled back",
        f"the hook refuses the new version: {message}",
        f"served: version 42: {OLD[0]}",
    ]


def test_a_roll_back_is_explained_without_the_right_to_read_the_hooks_log(aws: RecordedAws) -> None:
    aws.frames = _rolled_back("CodeDeploy failed", hook="Failed", status="Failed", error="failed")
    aws.refused["FilterLogEvents"] = ("AccessDeniedException", "no")
    result = _run(f"release {NEW[0]}")
    assert result.exit_code == 1
    assert result.output.splitlines()[-2] == "the hook refuses the new version: failed"


def test_an_alarm_is_shown_when_it_rings_and_as_the_reason(aws: RecordedAws) -> None:
    reason = "One or more alarms have been activated according to the Amazon CloudWatch metrics"
    frames = _rolled_back("", hook="Succeeded", status="Stopped", error=reason)
    rings = Frame(hook="Succeeded", weight=10.0, alarm="release-latency")
    aws.frames = [*frames[:3], rings, rings, *frames[3:]]
    result = _run(f"release {NEW[0]}")
    assert result.exit_code == 1
    alarm = f"alarm {NAME}/release-latency: Threshold Crossed: release-latency"
    assert result.output.count(alarm) == 1
    assert result.output.splitlines()[-2] == reason


def test_the_first_failure_is_the_reason_and_of_a_nested_stack_that_in_it(aws: RecordedAws) -> None:
    aws.frames = [
        Frame(
            (
                ("Delivery", "UPDATE_FAILED", "Embedded stack was not successfully updated"),
                (ALIAS, "UPDATE_FAILED", "Resource update cancelled"),
                (NAME, "UPDATE_ROLLBACK_COMPLETE", ""),
            )
        )
    ]
    aws.nested_events = [
        ("Canary", "UPDATE_FAILED", "of an earlier update"),
        (NAME, "UPDATE_IN_PROGRESS", ""),
        ("CanaryRole", "UPDATE_FAILED", "API: iam:PutRolePolicy is not allowed"),
        ("Canary", "UPDATE_FAILED", "Resource update cancelled"),
    ]
    result = _run(f"release {NEW[0]}")
    assert result.exit_code == 1
    assert "CanaryRole: API: iam:PutRolePolicy is not allowed" in result.output.splitlines()


def test_a_version_that_a_rolled_back_release_left_is_explained(aws: RecordedAws) -> None:
    reason = "A version for this Lambda function exists ( 43 ). Modify the function to create one."
    failed = ("FunctionVersion1f", "UPDATE_FAILED", reason)
    aws.frames = [Frame((failed, (NAME, "UPDATE_ROLLBACK_COMPLETE", "")))]
    output = _run(f"release {NEW[0]}").output
    assert f"aws lambda delete-function --function-name {NAME} --qualifier" in output


def test_a_failed_rollback_names_the_command_that_continues_it(aws: RecordedAws) -> None:
    aws.frames = [Frame(((NAME, "UPDATE_ROLLBACK_FAILED", ""),))]
    output = _run(f"release {NEW[0]}").output
    assert f"aws cloudformation continue-update-rollback --stack-name {NAME}" in output


def test_an_alias_that_does_not_serve_the_release_alone_is_an_error(aws: RecordedAws) -> None:
    aws.frames = [*PASSES[:-1], Frame(((NAME, "UPDATE_COMPLETE", ""),))]  # 10 % still
    result = _run(f"release {NEW[0]}")
    assert result.exit_code == 1
    assert "doesn't serve" in result.output


@pytest.mark.parametrize("uri", [OLD[0], OLD[0].removesuffix("/")])
def test_a_bundle_that_the_stack_has_is_not_released_again(aws: RecordedAws, uri: str) -> None:
    result = _run(f"release {uri}")
    assert (result.exit_code, aws.actions) == (0, [])
    assert f"{NAME} has ModelUri={OLD[0]} already: nothing to release" in result.output


@pytest.mark.parametrize(
    ("status", "next_command"),
    [
        ("UPDATE_IN_PROGRESS", f"feedrank rollback --stack {NAME}"),
        ("UPDATE_ROLLBACK_FAILED", "aws cloudformation continue-update-rollback"),
        ("ROLLBACK_COMPLETE", f"sam delete --stack-name {NAME}"),
    ],
)
def test_a_stack_that_can_not_be_updated_says_what_can_be_done(
    aws: RecordedAws, status: str, next_command: str
) -> None:
    aws.stack_status = status
    result = _run(f"release {NEW[0]}")
    assert (result.exit_code, aws.actions) == (1, [])
    assert next_command in _one_line(result.output)


def test_a_release_can_wait_for_the_end_of_another_change(aws: RecordedAws) -> None:
    aws.becomes = ["UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "UPDATE_COMPLETE"]
    aws.frames = [*PASSES]
    result = _run(f"release {NEW[0]} --wait")
    assert result.exit_code == 0, result.output
    assert len(aws.called("DescribeStacks")) == 3
    assert aws.actions == ["CreateChangeSet", "ExecuteChangeSet"]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://bundles/feed_ranker/", "is no bundle's URI"),
        (f"s3://bundles/{'m' * 200}/sha256-{'ab' * 32}/", "characters, of 214 at most"),
        (f"s3://bundles/m/sha256-{'ab' * 32}/", "there is no bundle"),
        (TEXTS[0], "the bundle's ids are texts and the stack's IdType is number"),
    ],
)
def test_a_bundle_that_the_stack_can_not_serve_is_refused_before_any_change(
    aws: RecordedAws, uri: str, message: str
) -> None:
    result = _run(f"release {uri}")
    assert (result.exit_code, aws.actions) == (1, [])
    assert message in _one_line(result.output)


def test_the_uri_that_is_accepted_is_the_one_that_the_template_accepts() -> None:
    parameter = template()["Parameters"]["ModelUri"]
    assert parameter["AllowedPattern"] == f"/opt/model|{URI.pattern}"
    assert parameter["MaxLength"] == MAX_URI


def test_cloudformations_own_reasons_are_shown(aws: RecordedAws) -> None:
    aws.change_set_failure = "Transform AWS::Serverless-2016-10-31 failed with: no bucket"
    assert aws.change_set_failure in _run(f"release {NEW[0]}").output
    assert aws.actions == ["CreateChangeSet", "DeleteChangeSet"]


@pytest.mark.parametrize(
    ("code", "message", "says"),
    [
        ("AccessDenied", "User: u is not authorized", "may not call CreateChangeSet: User: u"),
        ("ExpiredToken", "expired", "the credentials have expired"),
        ("ValidationError", "Parameter ModelUri failed to satisfy", "Parameter ModelUri failed"),
    ],
)
def test_a_refused_call_is_one_line_with_the_next_step_below(
    aws: RecordedAws, code: str, message: str, says: str
) -> None:
    aws.refused["CreateChangeSet"] = (code, message)
    result = _run(f"release {NEW[0]}")
    assert result.exit_code == 1
    assert says in result.output
    assert "Traceback" not in result.output


def test_an_unknown_stack_and_a_missing_region_say_what_to_set(
    aws: RecordedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = _run("status", "feedrank-staging").output
    assert output.startswith("feedrank-staging: there is no such stack in eu-west-1")
    assert "AWS_REGION" in output
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    assert _run("status").output.startswith(f"{NAME}: no region: set AWS_REGION")


def test_the_page_of_a_proxy_is_no_traceback(
    aws: RecordedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    def page(_: Any) -> Any:
        raise ResponseParserError("Unable to parse response, invalid XML received")

    monkeypatch.setattr(aws, "describe_stacks", page)
    result = _run("status")
    assert result.exit_code == 1
    assert result.output == f"{NAME}: what responds is no AWS; is there a proxy?\n"


# ---- rollback ----


def test_a_rollback_points_the_alias_to_the_newest_earlier_version_with_another_bundle(
    aws: RecordedAws,
) -> None:
    aws.versions = {"40": NEW[0], "41": OLD[0], "42": OLD[0]}  # 42 changed a setting alone
    result = _run("rollback")
    assert result.exit_code == 0, result.output
    assert aws.alias == ("40", {})
    assert _served(result) == [("40", "100%", NEW[0][-65:][:12])]
    assert "CloudFormation still has version 42" in result.output
    assert f"feedrank release MODEL --stack {NAME} --realign" in result.output
    assert f"feedrank rollback --stack {NAME} --to 42" in result.output


def test_a_rollback_can_name_its_version(aws: RecordedAws) -> None:
    assert _run("rollback --to 40").exit_code == 0
    assert aws.alias == ("40", {})
    assert aws.actions == ["UpdateAlias"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--to 7", "has no version 7\nthese are there: 43, 42, 41, 40"),
        ("", "no earlier version has another bundle than version 42"),
    ],
)
def test_a_rollback_without_a_version_to_go_to_changes_nothing(
    aws: RecordedAws, option: str, message: str
) -> None:
    if not option:
        aws.versions = {"41": OLD[0], "42": OLD[0]}
    result = _run(f"rollback {option}")
    assert (result.exit_code, aws.actions) == (1, [])
    assert message in result.output


def test_a_rollback_to_what_is_served_changes_nothing(aws: RecordedAws) -> None:
    result = _run("rollback --to 42")
    assert (result.exit_code, aws.actions) == (0, [])
    assert "serves version 42 alone already" in result.output


def test_a_rollback_during_a_release_stops_it(aws: RecordedAws) -> None:
    aws.stack_status, aws.alias = "UPDATE_IN_PROGRESS", ("42", {"43": 0.1})
    aws.frames = [
        Frame(((NAME, "UPDATE_ROLLBACK_IN_PROGRESS", "User Initiated"),)),
        Frame(((NAME, "UPDATE_ROLLBACK_COMPLETE", ""),), alias=("42", {})),
    ]
    result = _run("rollback")
    assert result.exit_code == 0, result.output
    assert aws.actions == ["CancelUpdateStack"]
    assert _served(result) == [("42", "100%", OLD[0][-65:][:12])]


def test_a_release_that_is_complete_before_it_is_stopped_is_no_rollback(aws: RecordedAws) -> None:
    aws.stack_status = "UPDATE_IN_PROGRESS"
    aws.frames = [Frame(((NAME, "UPDATE_COMPLETE", ""),), alias=("43", {}))]
    result = _run("rollback")
    assert result.exit_code == 1
    assert "the update was complete before it could be stopped" in result.output


def test_after_a_rollback_a_release_asks_before_it_moves_the_alias_back(aws: RecordedAws) -> None:
    """CodeDeploy refuses a deployment whose current version isn't the alias's."""
    aws.alias = ("41", {})
    result = _run(f"release {NEW[0]}")
    assert (result.exit_code, aws.actions) == (1, [])
    assert "--realign moves it back first" in result.output
    aws.frames = [*PASSES]
    assert _run(f"release {NEW[0]} --realign").exit_code == 0
    assert aws.actions == ["CreateChangeSet", "UpdateAlias", "ExecuteChangeSet"]
    (moved,) = aws.called("UpdateAlias")
    assert moved["FunctionVersion"] == "42"


def test_the_alias_is_moved_back_by_realign_where_there_is_no_other_model(aws: RecordedAws) -> None:
    aws.alias = ("41", {})
    result = _run(f"release {OLD[0]} --realign")
    assert result.exit_code == 0, result.output
    assert aws.actions == ["UpdateAlias"]
    assert aws.alias == ("42", {})
    assert _served(result) == [("42", "100%", OLD[0][-65:][:12])]


def test_a_dry_run_does_not_move_the_alias(aws: RecordedAws) -> None:
    aws.alias = ("41", {})
    for model in (OLD[0], NEW[0]):
        assert _run(f"release {model} --realign --dry-run").exit_code == 0
    assert aws.alias == ("41", {})


def test_a_rollback_does_not_wait_until_the_release_is_cleaned_up(aws: RecordedAws) -> None:
    aws.stack_status, aws.stack_version = "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "43"
    aws.alias, aws.model = ("43", {}), NEW[0]
    assert _run("rollback").exit_code == 0
    assert aws.actions == ["UpdateAlias"]
    assert aws.alias == ("42", {})


# ---- versions that Lambda has deactivated ----


@pytest.mark.parametrize(
    ("states", "actions"),
    [
        (["Active"], ["UpdateAlias"]),
        (["Pending", "Pending", "Active"], ["UpdateAlias"]),
        (["Inactive", "Inactive", "Pending", "Active"], ["Invoke", "UpdateAlias"]),
    ],
)
def test_the_alias_moves_to_a_version_once_it_is_active(
    aws: RecordedAws, states: list[str], actions: list[str]
) -> None:
    aws.states["40"] = states
    result = _run("rollback --to 40")
    assert result.exit_code == 0, result.output
    assert aws.actions == actions
    assert states == ["Active"]
    assert aws.alias == ("40", {})


@pytest.mark.parametrize("states", [["Failed"], ["Inactive", "Pending", "Failed"]])
def test_the_alias_stays_where_a_version_can_not_be_restored(
    aws: RecordedAws, states: list[str]
) -> None:
    aws.states["40"] = states
    result = _run("rollback --to 40")
    assert result.exit_code == 1
    assert f"{NAME}: version 40 is Failed" in result.output
    assert aws.alias == ("42", {})


def test_a_version_that_stays_inactive_is_not_waited_for_for_ever(
    aws: RecordedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedops.release.ready.MAX_POLLS", 3)
    aws.states["40"] = ["Inactive"]
    result = _run("rollback --to 40")
    assert result.exit_code == 1
    assert "version 40 is Inactive" in result.output
    assert aws.alias == ("42", {})


def test_realign_wakes_the_version_that_it_goes_back_to(aws: RecordedAws) -> None:
    aws.alias, aws.frames = ("41", {}), [*PASSES]
    aws.states["42"] = ["Inactive", "Active"]
    assert _run(f"release {NEW[0]} --realign").exit_code == 0
    assert aws.actions == ["CreateChangeSet", "Invoke", "UpdateAlias", "ExecuteChangeSet"]


# ---- status ----


def test_status_shows_versions_weights_digests_and_alarms(aws: RecordedAws) -> None:
    aws.alias = ("42", {"43": 0.1})
    aws.alarm_states["server-errors"] = "ALARM"
    result = _run("status")
    assert result.exit_code == 0, result.output
    lines = [_one_line(line).strip() for line in result.output.splitlines()]
    assert lines[0] == f"{NAME} is UPDATE_COMPLETE, ModelUri={OLD[0]}"
    assert [line for line in lines[3:] if line] == [
        f"42 90% feed_ranker {OLD[0][-65:][:12]} 2026-11-20T08:00:00Z",
        f"43 10% feed_ranker {NEW[0][-65:][:12]} 2026-11-20T08:00:00Z",
        "41 layer see /model 2026-11-20T08:00:00Z",
        "40 layer see /model 2026-11-20T08:00:00Z",
        "alarms 1 ALARM, 1 OK",
        "server-errors Threshold Crossed: server-errors",
    ]


def test_status_says_that_the_alias_was_moved(aws: RecordedAws) -> None:
    aws.alias = ("41", {})
    output = _one_line(_run("status").output)
    assert "41 100% layer see /model" in output
    assert "The alias was moved: CloudFormation still has version 42." in output


def test_status_shows_a_deployment_that_is_under_way(aws: RecordedAws) -> None:
    aws.stack_status = "UPDATE_IN_PROGRESS"
    aws._frame = Frame(hook="Succeeded", weight=10.0)
    output = _run("status").output
    assert "Deployment d-ABCDEF123: the hook accepts the new version; version 43 gets" in output
