// What `hello` answers in plain text, through AWS's own client for Go.
package main

import (
	"context"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
)

func hello(_ context.Context, event events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error) {
	name, given := event.QueryStringParameters["name"]
	if !given {
		name = "world"
	}
	return events.APIGatewayV2HTTPResponse{
		StatusCode: 200,
		Headers:    map[string]string{"content-type": "text/plain; charset=utf-8"},
		Body:       "Hello, " + name + "!",
	}, nil
}

func main() {
	lambda.Start(hello)
}
