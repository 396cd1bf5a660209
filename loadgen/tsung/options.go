package tsung

import "time"

// options is what a file sets for all sessions.
type options struct {
	think    *element // the option thinktime, or an empty element
	override bool     // thinktimes of sessions count for nothing
	idle     time.Duration
	readRate int                 // bytes a second
	files    map[string][]string // lines of the files from which variables are set, by the files' ids
}

// needless are options that make no difference here, and why.
var needless = map[string]string{
	"ports_range":              "all ports of a source address are used",
	"hibernate":                "users take little memory",
	"seed":                     "random numbers are others in each run",
	"tcp_snd_buffer":           "the kernel's buffers are as they are",
	"tcp_rcv_buffer":           "the kernel's buffers are as they are",
	"udp_snd_buffer":           "nothing uses UDP",
	"udp_rcv_buffer":           "nothing uses UDP",
	"tcp_reuseaddr":            "ports are chosen so that it is not needed",
	"tcp_reuseport":            "ports are chosen so that it is not needed",
	"max_ssh_startup_per_core": "nothing starts over SSH",
	"job_notify_port":          "there is no job scheduler",
	"bosh_path":                "nothing uses BOSH",
	"user_agent":               "tsung sends it with HTTP requests alone",
	"ssl_ciphers":              "the ciphers are those of TLS 1.3",
	"ssl_versions":             "the version is TLS 1.3",
	"ssl_reuse_sessions":       "TLS sessions are not resumed",
	"websocket_path":           "it is for servers of type websocket; a session's connect has its own",
	"websocket_frame":          "it is for servers of type websocket; a session's messages have their own",
	"websocket_subprotocols":   "it is for servers of type websocket; a session's connect has its own",
	"max_retries":              "a user whose connection fails is counted and does not try again",
	"retry_timeout":            "a user whose connection fails is counted and does not try again",
	"connect_timeout":          "how long users may take to connect is a flag of the run",
	"global_number":            "users do not wait for each other",
	"global_ack_timeout":       "users do not wait for each other",
	"ip_transparent":           "source addresses have to be this machine's own",
}

// settings reads the options.
func (t *translation) settings(e *element) options {
	o := options{think: &element{}, files: map[string][]string{}}
	for _, option := range e.all("option") {
		switch name := option.attr("name"); name {
		case "thinktime":
			o.think, o.override = option, option.attr("override") == "true"
		case "idle_timeout":
			o.idle = t.seconds(option, t.number(option, "value", 600_000)/1000)
		case "rate_limit":
			const kilobyte = 1024 // bytes
			o.readRate = kilobyte * t.whole(option, "value", 512, 1<<20)
		case "file_server":
			lines, err := t.read(option.attr("value"))
			if err != nil {
				t.fail(option, "option file_server: %v", err)
			}
			o.files[option.attr("id", "default")] = lines
		default:
			if why, known := needless[name]; known {
				t.note(option, "option %s makes no difference: %s", name, why)
			} else {
				t.note(option, "option %.40s is not known", name)
			}
		}
	}
	return o
}
