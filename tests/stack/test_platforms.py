"""The templates beside the images, compared with the server that they start and with what each
platform documents."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from cfnlint import api as cfnlint
from cfnlint.config import ManualArgs
from moto.core import set_initial_no_auth_action_count

from feedops.workspace import PROJECT
from feedrank import server
from feedrank.bundle.layout import MANIFEST
from feedrank.http.routes import ROUTES, SAGEMAKER
from feedrank.settings import Settings
from stack.iam import ACCOUNT, REGION, allowed, become
from stack.transform import Json, resolved, template

IMAGES = Path("infra/images")
ECS, SAGEMAKER_YAML, GPU = (f"infra/images/{name}.yaml" for name in ("ecs", "sagemaker", "gpu"))
DIGEST, EARLIER = "ab" * 32, "cd" * 32
BUCKET, PARENT = "bundles", "feedrank/feed_ranker"
URI = f"s3://{BUCKET}/{PARENT}/sha256-{DIGEST}"
IMAGE_DIGEST = f"sha256:{'ef' * 32}"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:record-ids-AbCdEf"
REQUIRED = {"ModelUri": URI, "ImageDigest": IMAGE_DIGEST}
KILLED_S = 30  # after SIGTERM, by SageMaker and by ECS
LONGEST_DESCRIPTION = 256  # of a version: Lambda's
HOLDERS = {
    ECS: "TaskRole",
    SAGEMAKER_YAML: "ModelRole",
    GPU: "FunctionRole",
}  # of a bundle's rights
each_template = pytest.mark.parametrize("path", HOLDERS)
each_end = pytest.mark.parametrize("end", ["", "/"])


def _stack(path: str, **parameters: str) -> dict[str, Json]:
    parameters = {**REQUIRED, **parameters}
    return resolved(template(path), **parameters)["Resources"]


def _properties(path: str, name: str, **parameters: str) -> dict[str, Json]:
    properties: dict[str, Json] = _stack(path, **parameters)[name]["Properties"]
    return properties


def _container(**parameters: str) -> dict[str, Json]:
    (container,) = _properties(ECS, "Task", **parameters)["ContainerDefinitions"]
    return dict(container)


def _variables(path: str, **parameters: str) -> dict[str, str]:
    """The environment of the process."""
    if path == ECS:
        named = _container(**parameters)["Environment"]
        return {variable["Name"]: str(variable["Value"]) for variable in named}
    if path == SAGEMAKER_YAML:
        return dict(_properties(path, "Model", **parameters)["PrimaryContainer"]["Environment"])
    return dict(_properties(path, "Function", **parameters)["Environment"]["Variables"])


def _dockerfile(image: str) -> str:
    return (PROJECT / IMAGES / image / "Dockerfile").read_text()


def _policies(path: str, role: str, **parameters: str) -> list[dict[str, Json]]:
    """As IAM gets them: the log group is the only other resource that a policy names."""
    stack = _stack(path, **parameters)
    group = stack["Logs"]["Properties"]["LogGroupName"]
    arn = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}:*"
    text = json.dumps([each["PolicyDocument"] for each in stack[role]["Properties"]["Policies"]])
    documents: list[dict[str, Json]] = json.loads(text.replace("${Logs.Arn}", arn))
    return documents


# ---- All three -----------------------------------------------------------------------------------


@each_end
@each_template
def test_every_variable_is_a_setting_and_the_server_accepts_them(path: str, end: str) -> None:
    variables = _variables(path, ModelUri=URI + end)
    uvicorns = {name for name in variables if name.startswith("UVICORN_")}
    fields = {field.alias for field in Settings.model_fields.values()}
    others = set(variables) - uvicorns - fields
    assert others == ({"AWS_REGION"} if path == ECS else set())
    settings = Settings.from_environment(variables)
    assert settings.model_digest == DIGEST
    assert settings.sagemaker == ("on" if path == SAGEMAKER_YAML else "off")
    assert settings.model_engine == ("torch" if path == GPU else "onnx")
    assert uvicorns == (set() if path == GPU else {"UVICORN_WORKERS"})


@each_template
def test_an_image_is_named_by_its_digest(path: str) -> None:
    name = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/"
    images = re.findall(rf'"({re.escape(name)}[^"]+)"', json.dumps(_stack(path)))
    assert images == [
        f"{name}{template(path)['Parameters']['Repository']['Default']}@{IMAGE_DIGEST}"
    ]


@each_template
def test_no_uri_can_widen_a_policy(path: str) -> None:
    pattern = re.compile(template(path)["Parameters"]["ModelUri"]["AllowedPattern"])
    assert all(pattern.fullmatch(URI + end) for end in ("", "/"))
    assert not pattern.fullmatch("/opt/model")
    for trick in ("*", "?", "${aws:username}", "a/*"):
        assert not pattern.fullmatch(f"s3://b/{trick}/sha256-{DIGEST}/")


@each_template
def test_with_or_without_a_slash_at_its_end_a_bundles_rights_are_the_same(path: str) -> None:
    without, with_slash = (_policies(path, HOLDERS[path], ModelUri=URI + end) for end in ("", "/"))
    assert without == with_slash


@each_template
@pytest.mark.usefixtures("aws_server")
def test_a_role_reads_its_bundle_and_earlier_ones_of_that_model(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3.setup_default_session()
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    bundles = [f"{PARENT}/sha256-{digest}/{MANIFEST}" for digest in (DIGEST, EARLIER)]
    others = [f"{PARENT}/notes.txt", "payroll.csv", f"another/model/sha256-{DIGEST}/{MANIFEST}"]
    for key in (*bundles, *others):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"{}")
    s3.close()
    become(_policies(path, HOLDERS[path]), monkeypatch)
    s3 = boto3.client("s3")

    @set_initial_no_auth_action_count(0)
    def read(key: str) -> bytes:
        return bytes(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    assert [read(key) for key in bundles] == [b"{}", b"{}"]
    for key in others:
        with pytest.raises(ClientError, match="AccessDenied"):
            read(key)
    s3.close()


@each_template
def test_an_encrypted_bundle_is_decrypted_only_through_s3(path: str) -> None:
    by_s3 = {"kms_ViaService": f"s3.{REGION}.amazonaws.com"}
    documents = _policies(path, HOLDERS[path], BundleKeyArn=KEY)
    assert allowed(documents, "kms:Decrypt", KEY, **by_s3)
    assert not allowed(documents, "kms:Decrypt", KEY)
    assert not allowed(documents, "kms:Decrypt", KEY.replace("1234abcd", "ffffffff"), **by_s3)
    assert not allowed(_policies(path, HOLDERS[path]), "kms:Decrypt", KEY, **by_s3)


@pytest.mark.parametrize(
    ("path", "role"), [(ECS, "ExecutionRole"), (SAGEMAKER_YAML, "ModelRole"), (GPU, "FunctionRole")]
)
def test_a_role_writes_to_its_own_log_group(path: str, role: str) -> None:
    documents, group = _policies(path, role), _properties(path, "Logs")["LogGroupName"]
    stream = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}:log-stream:task/feedrank/1"
    for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
        assert allowed(documents, action, stream)
        assert not allowed(documents, action, stream.replace(group, f"{group}-other"))


@pytest.mark.parametrize(("path", "role"), [(ECS, "ExecutionRole"), (SAGEMAKER_YAML, "ModelRole")])
def test_a_role_pulls_one_repository(path: str, role: str) -> None:
    documents = _policies(path, role, Repository="team/feedrank")
    repository = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/team/feedrank"
    for action in ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer"):
        assert allowed(documents, f"ecr:{action}", repository)
        assert not allowed(documents, f"ecr:{action}", repository + "-other")
    assert allowed(documents, "ecr:GetAuthorizationToken", "*")
    assert not allowed(documents, "ecr:PutImage", repository)


def test_the_users_of_the_images_are_not_root_but_for_sagemaker() -> None:
    users = {
        image: re.findall(r"^USER (.+)$", _dockerfile(image), re.MULTILINE)[-1]
        for image in ("cpu", "gpu", "sagemaker")
    }
    ids = {image: user.partition(":")[0] for image, user in users.items()}
    assert ids.pop("sagemaker") == "0"  # its manual wants it; a name would need /etc/passwd
    assert not {"root", "0"} & set(ids.values())


# ---- ECS -----------------------------------------------------------------------------------------


def test_a_task_has_no_right_that_it_does_not_need() -> None:
    container = _container()
    assert container["ReadonlyRootFilesystem"] is True
    assert "Privileged" not in container
    assert "User" not in container  # the image's
    linux = container["LinuxParameters"]
    assert linux["Capabilities"] == {"Drop": ["ALL"]}
    (tmpfs,) = linux["Tmpfs"]
    cache = Settings.model_fields["model_cache_dir"].default
    assert tmpfs["ContainerPath"] == str(cache.parent)
    service = _properties(ECS, "Service")
    assert service["EnableExecuteCommand"] is False
    network = service["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert network["AssignPublicIp"] == "DISABLED"


def test_a_task_has_memory_for_its_copies() -> None:
    parameters = template(ECS)["Parameters"]
    for cpu in parameters["TaskCpu"]["AllowedValues"]:
        task = _properties(ECS, "Task", TaskCpu=cpu)
        workers = int(_variables(ECS, TaskCpu=cpu)["UVICORN_WORKERS"])
        assert (task["Cpu"], workers) == (cpu, int(cpu) // 1024)
        assert int(task["Memory"]) == 2_048 * workers  # which Fargate has for each size


def test_what_is_probed_is_a_probe_at_the_port_that_the_image_serves() -> None:
    probes = {route.path for route in ROUTES if route.is_probe}
    (port,) = map(int, re.findall(r"^EXPOSE (\d+)$", _dockerfile("cpu"), re.MULTILINE))
    group, container = _properties(ECS, "TargetGroup"), _container()
    (mapping,) = container["PortMappings"]
    (behind,) = _properties(ECS, "Service")["LoadBalancers"]
    ports = (mapping["ContainerPort"], group["Port"], behind["ContainerPort"])
    assert ports == (port, port, port)
    url = re.search(rf"http://127\.0\.0\.1:{port}(/\w+)", container["HealthCheck"]["Command"][-1])
    assert url
    assert {group["HealthCheckPath"], url[1]} == {"/ready", "/live"} <= probes
    assert all(path.encode() in server.PROBES for path in probes)


def test_a_task_that_stops_loses_no_request() -> None:
    """ECS takes it from the load balancer, waits for the delay, then sends SIGTERM:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/load-balancer-connection-draining.html
    """
    parameters = template(ECS)["Parameters"]
    longest_s = server.HEAD_S + server.BODY_S + parameters["RequestTimeoutMs"]["Default"] / 1_000
    assert (
        parameters["DrainSeconds"]["Default"] > parameters["DrainSeconds"]["MinValue"] > longest_s
    )
    attributes = {
        a["Key"]: a["Value"] for a in _properties(ECS, "TargetGroup")["TargetGroupAttributes"]
    }
    assert attributes["deregistration_delay.timeout_seconds"] == "25"
    assert server.DRAIN_S + server.EXIT_S < _container()["StopTimeout"] <= KILLED_S


def test_the_server_is_not_the_first_to_close_an_idle_connection() -> None:
    attributes = _properties(ECS, "LoadBalancer")["LoadBalancerAttributes"]
    (idle_s,) = (a["Value"] for a in attributes if a["Key"] == "idle_timeout.timeout_seconds")
    assert int(idle_s) < server.KEEP_ALIVE_S


def test_a_deployment_is_rolled_back_by_itself_and_by_alarms() -> None:
    stack = _stack(ECS)
    deployment = stack["Service"]["Properties"]["DeploymentConfiguration"]
    assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    assert deployment["Alarms"]["Enable"] is deployment["Alarms"]["Rollback"] is True
    alarms = {f"${{{n}}}" for n, r in stack.items() if r["Type"] == "AWS::CloudWatch::Alarm"}
    assert set(deployment["Alarms"]["AlarmNames"]) == alarms
    assert (deployment["MinimumHealthyPercent"], deployment["MaximumPercent"]) == (100, 200)


def test_tasks_scale_with_the_requests_that_each_gets() -> None:
    policy = _properties(ECS, "ScalingPolicy")["TargetTrackingScalingPolicyConfiguration"]
    metric = policy["PredefinedMetricSpecification"]
    assert metric["PredefinedMetricType"] == "ALBRequestCountPerTarget"
    label = "${LoadBalancer.LoadBalancerFullName}/${TargetGroup.TargetGroupFullName}"
    assert metric["ResourceLabel"] == label  # app/NAME/ID/targetgroup/NAME/ID


def test_only_the_load_balancer_and_a_scraper_reach_a_task() -> None:
    def sources(**parameters: str) -> set[str]:
        return {
            resource["Properties"]["SourceSecurityGroupId"]
            for resource in _stack(ECS, **parameters).values()
            if resource["Type"] == "AWS::EC2::SecurityGroupIngress"
        }

    assert sources() == {"${LoadBalancerSecurityGroup}"}
    assert sources(ScraperSecurityGroupId="sg-1") == {"${LoadBalancerSecurityGroup}", "sg-1"}
    assert "SecurityGroupIngress" not in _properties(ECS, "TaskSecurityGroup")
    assert _properties(ECS, "LoadBalancer")["Scheme"] == "internal"
    cidr = re.compile(template(ECS)["Parameters"]["CallersCidr"]["AllowedPattern"])
    assert cidr.fullmatch("10.0.0.0/16")
    assert not cidr.fullmatch("0.0.0.0/0")


def test_the_key_of_hashed_ids_is_read_by_the_process_alone() -> None:
    hashed = {"RecordIdKeySecretArn": SECRET}
    settings = Settings.from_environment(_variables(ECS, **hashed))
    assert (settings.record_ids, settings.record_id_key_secret) == ("hashed", SECRET)
    assert Settings.from_environment(_variables(ECS)).record_ids == "plain"
    action = "secretsmanager:GetSecretValue"
    assert allowed(_policies(ECS, "TaskRole", **hashed), action, SECRET)
    assert not allowed(_policies(ECS, "TaskRole", **hashed), action, SECRET.replace("Ab", "Xy"))
    assert not allowed(_policies(ECS, "TaskRole"), action, SECRET)
    assert not allowed(_policies(ECS, "ExecutionRole", **hashed), action, SECRET)


@pytest.mark.parametrize(
    ("rows", "uri"), [("users", "users:dynamodb://t-1"), ("all", "dynamodb://t-1")]
)
def test_live_features_are_read_from_one_table(rows: str, uri: str) -> None:
    live = {"FeaturesTable": "t-1", "LiveFeatures": rows}
    assert Settings.from_environment(_variables(ECS, **live)).features_uri == uri
    assert Settings.from_environment(_variables(ECS, LiveFeatures=rows)).features_uri == "snapshot"
    table = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/t-1"
    for action in ("GetItem", "BatchGetItem"):
        assert allowed(_policies(ECS, "TaskRole", **live), f"dynamodb:{action}", table)
        assert not allowed(_policies(ECS, "TaskRole", **live), f"dynamodb:{action}", table + "0")
        assert not allowed(_policies(ECS, "TaskRole"), f"dynamodb:{action}", table)
    assert not allowed(_policies(ECS, "TaskRole", **live), "dynamodb:PutItem", table)


def test_no_line_is_dropped_without_a_word() -> None:
    """ECS's own default is non-blocking, with a buffer that overflows silently."""
    assert _container()["LogConfiguration"]["Options"]["mode"] == "blocking"


# ---- SageMaker -----------------------------------------------------------------------------------


def test_sagemaker_starts_the_server_by_its_entry_point_and_serve() -> None:
    text = _dockerfile("sagemaker")
    (entry,), (command,) = (
        [json.loads(line) for line in re.findall(rf"^{word} (\[.+\])$", text, re.MULTILINE)]
        for word in ("ENTRYPOINT", "CMD")
    )
    assert entry[:3] == ["python", "-m", server.__name__]
    assert entry[3:] == ["--host", "0.0.0.0", "--port", "8080"]
    assert command == ["serve"]
    assert {route.key for route in SAGEMAKER} == {"GET /ping", "POST /invocations"}
    assert server.DRAIN_S + server.EXIT_S < KILLED_S


@each_end
def test_sagemaker_lays_the_bundle_where_the_server_looks_for_it(end: str) -> None:
    """It fetches each object below the prefix into /opt/ml/model, by the rest of its key."""
    model = _properties(SAGEMAKER_YAML, "Model", ModelUri=URI + end)
    source = model["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]
    assert (source["S3DataType"], source["CompressionType"]) == ("S3Prefix", "None")
    assert source["S3Uri"] == f"{URI}/"
    assert _variables(SAGEMAKER_YAML)["MODEL_URI"] == "/opt/ml/model"
    assert model["EnableNetworkIsolation"] is True


def test_sagemaker_lists_bundles_and_nothing_else() -> None:
    documents, bucket = _policies(SAGEMAKER_YAML, "ModelRole"), f"arn:aws:s3:::{BUCKET}"
    prefix = f"{PARENT}/sha256-{DIGEST}/"
    assert allowed(documents, "s3:ListBucket", bucket, s3_prefix=prefix)
    assert not allowed(documents, "s3:ListBucket", bucket, s3_prefix="")
    assert not allowed(documents, "s3:ListBucket", bucket, s3_prefix="payroll/")
    assert not allowed(documents, "s3:ListBucket", bucket)
    assert not allowed(documents, "s3:ListBucket", bucket + "-other", s3_prefix=prefix)


def test_requests_and_responses_are_not_captured() -> None:
    assert "DataCaptureConfig" not in _properties(SAGEMAKER_YAML, "EndpointConfig")


def test_an_update_shifts_one_instance_first_and_alarms_roll_it_back() -> None:
    stack = _stack(SAGEMAKER_YAML)
    endpoint = stack["Endpoint"]["Properties"]
    update = endpoint["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    canary = update["TrafficRoutingConfiguration"]["CanarySize"]
    (variant,) = stack["EndpointConfig"]["Properties"]["ProductionVariants"]
    assert canary == {"Type": "INSTANCE_COUNT", "Value": 1}
    fewest = template(SAGEMAKER_YAML)["Parameters"]["InstancesMin"]["MinValue"]
    assert canary["Value"] <= fewest / 2  # "less than or equal to 50% of the variant's"
    waits_s = update["TrafficRoutingConfiguration"]["WaitIntervalInSeconds"]
    assert waits_s + update["TerminationWaitInSeconds"] < update["MaximumExecutionTimeoutInSeconds"]
    alarms = {n: r["Properties"] for n, r in stack.items() if r["Type"] == "AWS::CloudWatch::Alarm"}
    named = endpoint["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]
    assert {alarm["AlarmName"] for alarm in named} == {f"${{{name}}}" for name in alarms}
    of_it = {"EndpointName": endpoint["EndpointName"], "VariantName": variant["VariantName"]}
    for alarm in alarms.values():
        assert {each["Name"]: each["Value"] for each in alarm["Dimensions"]} == of_it
        wait_s = alarm["Period"] * alarm["EvaluationPeriods"]
        assert wait_s <= waits_s  # else the canary is over before an alarm can tell
    target = stack["ScalableTarget"]["Properties"]["ResourceId"]
    assert target == f"endpoint/{of_it['EndpointName']}/variant/{of_it['VariantName']}"


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("ModelUri", f"s3://{BUCKET}/{PARENT}/sha256-{EARLIER}/"),
        ("ImageDigest", f"sha256:{'01' * 32}"),
        ("RequestTimeoutMs", "1500"),
        ("Engine", "torch"),
    ],
)
def test_what_changes_in_a_model_makes_a_new_one_and_so_an_update(
    parameter: str, value: str
) -> None:
    """CloudFormation replaces a model of which anything but its tags changes, and with it the
    configuration that names it; a name of one's own would make that fail."""
    before, after = (_stack(SAGEMAKER_YAML, **change) for change in ({}, {parameter: value}))
    assert before["Model"] != after["Model"]
    assert "ModelName" not in before["Model"]["Properties"]
    assert "EndpointConfigName" not in before["EndpointConfig"]["Properties"]
    (variant,) = before["EndpointConfig"]["Properties"]["ProductionVariants"]
    assert variant["ModelName"] == "${Model.ModelName}"
    config = before["Endpoint"]["Properties"]["EndpointConfigName"]
    assert config == "${EndpointConfig.EndpointConfigName}"


# ---- Lambda Managed Instances, with a GPU --------------------------------------------------------


def test_the_linter_lacks_one_property_and_has_nothing_else_to_say() -> None:
    """Once it knows the property, the exception has to go."""
    source = template(GPU)
    exception = source["Resources"]["Function"].pop("Metadata")
    assert exception == {"cfn-lint": {"config": {"ignore_checks": ["E3002"]}}}
    (match,) = cfnlint.lint(json.dumps(source), config=ManualArgs(regions=[REGION]))
    assert (match.rule.id, "'AcceleratorConfig'" in match.message) == ("E3002", True)


def test_an_accelerator_has_what_lambda_documents_for_it() -> None:
    """https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/
    sam-property-function-acceleratorconfig.html"""
    function = _properties(GPU, "Function")
    assert (function["PackageType"], function["Architectures"]) == ("Image", ["x86_64"])
    assert function["AcceleratorConfig"].keys() == {"AcceleratorMemorySize"}
    assert template(GPU)["Parameters"]["AcceleratorMemoryGiB"]["AllowedValues"] == [
        3, 6, 12, 16, 24, 48,
    ]  # fmt: skip
    managed = function["CapacityProviderConfig"]["LambdaManagedInstancesCapacityProviderConfig"]
    assert managed["CapacityProviderArn"] == "${CapacityProvider.Arn}"
    assert "VpcConfig" not in function  # the provider's
    provider = _properties(GPU, "CapacityProvider")
    assert provider["InstanceRequirements"]["Architectures"] == function["Architectures"]


ANOTHER = {
    "ModelUri": f"s3://{BUCKET}/{PARENT}/sha256-{EARLIER}",
    "ImageDigest": f"sha256:{'01' * 32}",
    "MemorySize": "4096",
    "EphemeralStorage": "1024",
    "AcceleratorMemoryGiB": "48",
    "ProcessesPerEnvironment": "1",
    "RequestTimeoutMs": "1500",
    "BundleKeyArn": KEY,
}


def test_a_version_is_published_by_whatever_changes_in_the_function() -> None:
    def changed(name: str) -> set[str]:
        before = _properties(GPU, name)
        return {
            parameter
            for parameter in template(GPU)["Parameters"]
            if before != _properties(GPU, name, **{parameter: ANOTHER.get(parameter, "another")})
        }

    of_function, of_version = changed("Function"), changed("Version")
    assert of_function - of_version == {"Repository"}  # a digest names one image in any of them
    assert of_version - of_function == {"EnvironmentsMin", "EnvironmentsMax"}


def test_the_longest_description_of_a_version_fits() -> None:
    parameters: Mapping[str, Json] = template(GPU)["Parameters"]
    numbers = {
        name: str(parameter.get("MaxValue", max(parameter.get("AllowedValues", [0]))))
        for name, parameter in parameters.items()
        if parameter["Type"] == "Number" and name in ANOTHER
    }
    uri = f"s3://{'b' * 60}/".ljust(parameters["ModelUri"]["MaxLength"] - 72, "p")
    uri += f"/sha256-{DIGEST}"
    assert re.fullmatch(parameters["ModelUri"]["AllowedPattern"], uri)
    assert len(uri) == parameters["ModelUri"]["MaxLength"]
    description = _properties(GPU, "Version", **numbers, ModelUri=uri)["Description"]
    assert len(description) <= LONGEST_DESCRIPTION


def test_the_runtime_client_of_the_image_starts_as_many_processes_as_lambda_says() -> None:
    """Managed Instances tell it how many requests they send at once."""
    from awslambdaric.lambda_config import LambdaConfigProvider

    environ = {"AWS_LAMBDA_MAX_CONCURRENCY": "2", "AWS_LAMBDA_RUNTIME_API": "localhost:1"}
    config = LambdaConfigProvider(["awslambdaric", "handler.lambda_handler"], environ | os.environ)
    assert config.is_multi_concurrent
    assert int(config.max_concurrency) == 2
    lock = (PROJECT / IMAGES / "gpu" / "requirements.txt").read_text()
    assert int(re.findall(r"^awslambdaric==(\d+)", lock, re.MULTILINE)[0]) >= 4
