// The official Go client against a URL: `client (legacy|modern) URL`. Prints one JSON document.
//
// Beside what client.mjs does, it is asked something by a tool, follows a resource, and hears of progress. The tools of
// the fixture are those of tests/conformance/fixture, behind the servers `old` and `new`.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const patience = 30 * time.Second

var revisions = map[string]string{"legacy": "2025-11-25", "modern": "2026-07-28"}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 || revisions[os.Args[1]] == "" {
		log.Fatal("usage: client (legacy|modern) URL")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := talk(ctx, revisions[os.Args[1]], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		log.Fatal(err)
	}
}

// talk does everything once and tells what it saw.
func talk(ctx context.Context, revision, url string) (map[string]any, error) {
	progress := make(chan float64, 16)
	updated := make(chan string, 16)
	client := mcp.NewClient(&mcp.Implementation{Name: "e2e", Version: "1.0.0"}, &mcp.ClientOptions{
		ElicitationHandler: func(context.Context, *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			content := map[string]any{"username": "gopher", "email": "gopher@example.com"}
			return &mcp.ElicitResult{Action: "accept", Content: content}, nil
		},
		ProgressNotificationHandler: func(_ context.Context, told *mcp.ProgressNotificationClientRequest) {
			progress <- told.Params.Progress
		},
		ResourceUpdatedHandler: func(_ context.Context, told *mcp.ResourceUpdatedNotificationRequest) {
			updated <- told.Params.URI
		},
	})
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: url},
		&mcp.ClientSessionOptions{ProtocolVersion: revision})
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer session.Close()
	out := map[string]any{"version": session.InitializeResult().ProtocolVersion}
	for _, step := range []func(context.Context, *mcp.ClientSession, map[string]any) error{list, use, fail} {
		if err := step(ctx, session, out); err != nil {
			return nil, err
		}
	}
	for _, server := range []string{"old", "new"} {
		params := &mcp.CallToolParams{Name: server + "__test_elicitation", Arguments: map[string]any{"message": "who?"}}
		if out["asked by "+server], err = text(session.CallTool(ctx, params)); err != nil {
			return nil, fmt.Errorf("asked by %s: %w", server, err)
		}
		params = &mcp.CallToolParams{Name: server + "__test_tool_with_progress"}
		params.SetProgressToken("token " + server)
		if _, err = text(session.CallTool(ctx, params)); err != nil {
			return nil, fmt.Errorf("progress of %s: %w", server, err)
		}
		heard := []float64{}
		for range 3 {
			select {
			case one := <-progress:
				heard = append(heard, one)
			case <-ctx.Done():
				return nil, fmt.Errorf("progress of %s: heard %v", server, heard)
			}
		}
		out["progress of "+server] = heard
	}
	out["updated"], err = follow(ctx, session, "test://watched-resource", updated)
	return out, err
}

// list asks for everything there is.
func list(ctx context.Context, session *mcp.ClientSession, out map[string]any) error {
	var tools, prompts, resources, templates []string
	for one, err := range session.Tools(ctx, nil) {
		if err != nil {
			return fmt.Errorf("tools: %w", err)
		}
		tools = append(tools, one.Name)
	}
	for one, err := range session.Prompts(ctx, nil) {
		if err != nil {
			return fmt.Errorf("prompts: %w", err)
		}
		prompts = append(prompts, one.Name)
	}
	for one, err := range session.Resources(ctx, nil) {
		if err != nil {
			return fmt.Errorf("resources: %w", err)
		}
		resources = append(resources, one.URI)
	}
	for one, err := range session.ResourceTemplates(ctx, nil) {
		if err != nil {
			return fmt.Errorf("templates: %w", err)
		}
		templates = append(templates, one.URITemplate)
	}
	out["tools"], out["prompts"], out["resources"], out["templates"] = tools, prompts, resources, templates
	return nil
}

// use calls a tool, gets a prompt, reads a resource and completes an argument.
func use(ctx context.Context, session *mcp.ClientSession, out map[string]any) (err error) {
	sum := &mcp.CallToolParams{Name: "everything__get-sum", Arguments: map[string]any{"a": 2, "b": 40}}
	if out["sum"], err = text(session.CallTool(ctx, sum)); err != nil {
		return fmt.Errorf("get-sum: %w", err)
	}
	now := &mcp.CallToolParams{Name: "time__get_current_time", Arguments: map[string]any{"timezone": "UTC"}}
	if out["time"], err = text(session.CallTool(ctx, now)); err != nil {
		return fmt.Errorf("get_current_time: %w", err)
	}
	weather := &mcp.CallToolParams{
		Name: "everything__get-structured-content", Arguments: map[string]any{"location": "Chicago"},
	}
	structured, err := session.CallTool(ctx, weather)
	if err != nil {
		return fmt.Errorf("get-structured-content: %w", err)
	}
	out["structured"] = structured.StructuredContent
	prompt, err := session.GetPrompt(ctx, &mcp.GetPromptParams{
		Name: "everything__args-prompt", Arguments: map[string]string{"city": "Oslo"},
	})
	if err != nil {
		return fmt.Errorf("prompt: %w", err)
	}
	out["prompt"] = prompt.Messages[0].Content.(*mcp.TextContent).Text
	read, err := session.ReadResource(ctx, &mcp.ReadResourceParams{URI: "demo://resource/dynamic/text/1"})
	if err != nil {
		return fmt.Errorf("resource: %w", err)
	}
	out["resource"] = read.Contents[0].Text
	completed, err := session.Complete(ctx, &mcp.CompleteParams{
		Ref:      &mcp.CompleteReference{Type: "ref/prompt", Name: "everything__completable-prompt"},
		Argument: mcp.CompleteParamsArgument{Name: "department", Value: "E"},
	})
	if err != nil {
		return fmt.Errorf("completion: %w", err)
	}
	out["completion"] = completed.Completion.Values
	return nil
}

// fail calls a tool that is not there.
func fail(ctx context.Context, session *mcp.ClientSession, out map[string]any) error {
	_, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "everything__nope"})
	var refused *jsonrpc.Error
	if !errors.As(err, &refused) {
		return fmt.Errorf("a tool that is not there: %v", err)
	}
	out["unknown"] = refused.Code
	return nil
}

// follow subscribes to a resource, has it changed, and waits to be told.
func follow(ctx context.Context, session *mcp.ClientSession, uri string, updated <-chan string) (string, error) {
	subscribed := make(chan error, 1)
	go func() { subscribed <- session.Subscribe(ctx, &mcp.SubscribeParams{URI: uri}) }()
	for {
		// The modern call returns when the stream ends, the legacy one at once; so change it until the news is there.
		if _, err := text(session.CallTool(ctx, &mcp.CallToolParams{Name: "old__test_trigger_resource_update"})); err != nil {
			return "", fmt.Errorf("changing %s: %w", uri, err)
		}
		select {
		case told := <-updated:
			return told, session.Unsubscribe(ctx, &mcp.UnsubscribeParams{URI: uri})
		case err := <-subscribed:
			if err != nil {
				return "", fmt.Errorf("subscribing to %s: %w", uri, err)
			}
			subscribed = nil
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return "", fmt.Errorf("never told of %s", uri)
		}
	}
}

// text is the text of a tool's result; an error of the tool is an error here.
func text(result *mcp.CallToolResult, err error) (string, error) {
	if err != nil {
		return "", err
	}
	said := ""
	for _, one := range result.Content {
		if one, is := one.(*mcp.TextContent); is {
			said += one.Text
		}
	}
	if result.IsError {
		return "", errors.New(said)
	}
	return said, nil
}
