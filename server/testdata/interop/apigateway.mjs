// What AWS's client for JavaScript does with a connection: post, get, delete, and find that it is gone.
import { createRequire } from "node:module";

const [dir, endpoint, secretAccessKey, ConnectionId] = process.argv.slice(2);
const { ApiGatewayManagementApi } = createRequire(`${dir}/`)("@aws-sdk/client-apigatewaymanagementapi");
const client = new ApiGatewayManagementApi({ endpoint, region: "us-east-1", credentials: { accessKeyId: "lull", secretAccessKey } });
try {
	await client.postToConnection({ ConnectionId, Data: "from JavaScript: é" });
	console.log((await client.getConnection({ ConnectionId })).Identity.SourceIp);
	await client.deleteConnection({ ConnectionId });
	for (;;) await client.postToConnection({ ConnectionId, Data: "" }); // it is closing
} catch (error) {
	if (error.name === "GoneException") console.log("gone");
	else if (error.name === "ForbiddenException") console.log("forbidden");
	else throw error;
}
