// Answers like `hello` in plain text, through AWS's own client for Node.js.
export async function handler(event) {
  const name = event.queryStringParameters?.name ?? "world";
  return {
    statusCode: 200,
    headers: { "content-type": "text/plain; charset=utf-8" },
    body: `Hello, ${name}!`,
  };
}
