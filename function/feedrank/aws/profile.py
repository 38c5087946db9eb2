"""What only boto3 knows: profiles, with their region and credentials. It is imported only here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feedrank.aws.endpoints import region_in
from feedrank.aws.errors import AwsConfigError

# With one of these boto3 looks elsewhere before it looks at a container's endpoint.
VARIABLES = (
    *("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
)
# A profile's settings that this client would not follow.
UNREAD = frozenset(
    {
        *("endpoint_url", "services", "ca_bundle", "s3"),
        *("use_fips_endpoint", "use_dualstack_endpoint"),
    }
)


def has_profiles(variables: Mapping[str, str]) -> bool:
    """Whether there may be one."""
    return any(map(variables.get, VARIABLES)) or _has_directory()


def _has_directory() -> bool:
    try:
        return Path("~/.aws").expanduser().is_dir()
    except RuntimeError:  # a user without a home
        return False


def profile_session() -> Any:  # noqa: ANN401 botocore's
    """botocore's session of the environment's profile. Raises AwsConfigError, ImportError without
    botocore, and botocore's own errors."""
    from botocore.session import Session

    session = Session()
    if unread := sorted(UNREAD & session.get_scoped_config().keys()):
        raise AwsConfigError(
            f"the AWS profile's {', '.join(unread)} is not read here: use the AWS_* variables"
        )
    return session


def region_of(variables: Mapping[str, str], default: str = "") -> str:
    """The environment's region, or else its profile's. Raises AwsConfigError where neither has one
    and there is no `default`."""
    region = region_in(variables)
    if not region and has_profiles(variables):
        try:
            region = profile_session().get_config_variable("region") or ""
        except AwsConfigError:
            raise
        except Exception as error:  # botocore's, or it is not installed
            raise AwsConfigError(f"no region: {error}") from error
    if not region and not default:
        raise AwsConfigError("no region: AWS_REGION is not set")
    return region or default
