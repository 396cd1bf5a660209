"""What AWS's client for Python does with a connection: post, get, delete, and find that it is gone."""

import sys

import boto3

endpoint, secret, connection = sys.argv[1:]
client = boto3.client(
    "apigatewaymanagementapi",
    endpoint_url=endpoint,
    region_name="us-east-1",
    aws_access_key_id="lull",
    aws_secret_access_key=secret,
)
try:
    client.post_to_connection(ConnectionId=connection, Data="from Python: é".encode())
    print(client.get_connection(ConnectionId=connection)["Identity"]["SourceIp"])
    client.delete_connection(ConnectionId=connection)
    while True:  # it is closing
        client.post_to_connection(ConnectionId=connection, Data=b"")
except client.exceptions.GoneException:
    print("gone")
except client.exceptions.ForbiddenException:
    print("forbidden")
