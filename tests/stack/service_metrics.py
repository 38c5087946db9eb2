"""Metrics that AWS services document, with their dimensions.

From the manuals of Lambda, API Gateway (HTTP APIs), Data Firehose, DynamoDB and CloudWatch Logs.
"""

FUNCTION = frozenset({"FunctionName"})
ALIAS = frozenset({"FunctionName", "Resource"})
API = frozenset({"ApiId"})
STAGE = frozenset({"ApiId", "Stage"})
ROUTE = frozenset({"ApiId", "Stage", "Method", "Resource"})
STREAM = frozenset({"DeliveryStreamName"})
LOG_GROUP = frozenset({"LogGroupName"})
TABLE = frozenset({"TableName"})
FILTER = frozenset({"LogGroupName", "DestinationType", "FilterName"})

DOCUMENTED = {
    "AWS/DynamoDB": ({TABLE}, {"ConsumedReadCapacityUnits", "ReadThrottleEvents"}),
    "AWS/Lambda": (
        {FUNCTION, ALIAS},
        {
            "Invocations",
            "Errors",
            "Throttles",
            "Duration",
            "ConcurrentExecutions",
            "ProvisionedConcurrentExecutions",
            "ProvisionedConcurrencyInvocations",
            "ProvisionedConcurrencySpilloverInvocations",
            "ProvisionedConcurrencyUtilization",
        },
    ),
    "AWS/ApiGateway": (
        {API, STAGE, ROUTE},
        {"Count", "4xx", "5xx", "Latency", "IntegrationLatency", "DataProcessed"},
    ),
    "AWS/Firehose": (
        {STREAM},
        {
            "IncomingBytes",
            "IncomingRecords",
            "ThrottledRecords",
            "DeliveryToS3.Bytes",
            "DeliveryToS3.DataFreshness",
            "DeliveryToS3.ObjectCount",
            "DeliveryToS3.Records",
            "DeliveryToS3.Success",
            "JQProcessing.Duration",
            "OutputDecompressedBytes.Failed",
            "OutputDecompressedBytes.Success",
            "OutputDecompressedRecords.Failed",
            "OutputDecompressedRecords.Success",
            "PartitionCount",
            "PartitionCountExceeded",
        },
    ),
    "AWS/Logs": (
        {LOG_GROUP, FILTER},
        {
            "IncomingBytes",
            "IncomingLogEvents",
            "ForwardedBytes",
            "ForwardedLogEvents",
            "DeliveryErrors",
            "DeliveryThrottling",
        },
    ),
}
# Metrics of an alias or a version, never of the function as a whole.
OF_AN_ALIAS = {
    "ProvisionedConcurrentExecutions",
    "ProvisionedConcurrencyInvocations",
    "ProvisionedConcurrencySpilloverInvocations",
    "ProvisionedConcurrencyUtilization",
}
