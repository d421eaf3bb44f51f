// A backend that decides about clients, with the standard library of Go.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
)

type request struct {
	User    string          `json:"user"`
	Channel string          `json:"channel"`
	Method  string          `json:"method"`
	Data    json.RawMessage `json:"data"`
}

type object = map[string]any

func result(value object) object { return object{"result": value} }

func failure(code int, message string) object {
	return object{"error": object{"code": code, "message": message}}
}

func connect(_ request, session string) object {
	if session == "" {
		return failure(1001, "log in first")
	}
	return result(object{"user": session, "channels": []string{"news"}})
}

func subscribe(asked request, _ string) object {
	if strings.HasPrefix(asked.Channel, "room") {
		return result(object{})
	}
	return failure(103, "permission denied")
}

func publish(asked request, _ string) object {
	var data struct {
		Text string `json:"text"`
	}
	if err := json.Unmarshal(asked.Data, &data); err != nil {
		return failure(107, "bad request")
	}
	return result(object{"data": object{"from": asked.User, "text": data.Text}})
}

func rpc(asked request, _ string) object {
	if asked.Method == "echo" {
		return result(object{"data": asked.Data})
	}
	return failure(104, "method not found")
}

func handle(path string, answer func(request, string) object) {
	http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			http.Error(w, "use POST", http.StatusMethodNotAllowed)
			return
		}
		var asked request
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		session := ""
		if cookie, err := r.Cookie("session"); err == nil {
			session = cookie.Value
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(answer(asked, session)); err != nil {
			log.Print(err)
		}
	})
}

func main() {
	handle("/connect", connect)
	handle("/subscribe", subscribe)
	handle("/publish", publish)
	handle("/rpc", rpc)
	port := os.Getenv("PORT")
	if port == "" {
		port = "3000"
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on port", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, nil))
}
