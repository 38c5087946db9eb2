"""What Lambda hands to a handler beside the event."""


class LambdaContext:
    function_name = "feedrank"
    function_version = "$LATEST"
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:feedrank"
    memory_limit_in_mb = "1769"
    log_group_name = "/aws/lambda/feedrank"
    log_stream_name = "local"
    aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"

    def get_remaining_time_in_millis(self) -> int:
        return 10_000
