"""A client of AWS for a start and for requests: S3's GetObject and services that speak JSON.

boto3's client takes 235 ms to import and 2 ms of CPU for a call, this one 24 ms and 0.2 ms. A
serving process on Lambda imports no boto3; profiles, SSO and web identities come from it all the
same. The AWS_* variables mean here what they mean to boto3, which the tests compare it with.

    signing      Signature Version 4
    credentials  from the environment, from a container's endpoint, from boto3
    endpoints    which host serves a service, a bucket or an access point
    connections  HTTP/1.1 connections that stay open, proxies, certificates
    client       one call: sign, send, check, try again within a deadline
    s3, services the two kinds of calls
"""
